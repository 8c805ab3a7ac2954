import { fileURLToPath } from 'node:url';
import { defineConfig } from 'tsdown';

/** Warnings and errors only; how long plugins took is no concern of users who build. */
const QUIET = { logLevel: 'warn', inputOptions: { checks: { pluginTimings: false } } } as const;

/** Takes the file `other` of lib wherever `name` is imported. */
const replaced = (name: string, other: string) => ({
  name: `instead-of-${name}`,
  resolveId: (id: string) =>
    id.endsWith(`/${name}`) ? fileURLToPath(new URL(`lib/${other}`, import.meta.url)) : undefined,
});

const library = {
  entry: { index: 'lib/index.ts', runtime: 'lib/runtime/index.ts' },
  dts: true,
  platform: 'node',
  target: 'node20',
  fixedExtension: true,
  ...QUIET,
} as const;

export default defineConfig([
  { ...library, format: 'esm', clean: true },
  // Written for those who follow `require`: see the two files.
  { ...library, format: 'cjs', clean: false, plugins: [replaced('gyp.js', 'backend/native/gyp-cjs.ts')] },
  {
    entry: { js: 'lib/js.ts' },
    format: ['esm', 'cjs'],
    dts: true,
    platform: 'neutral',
    target: 'es2022',
    fixedExtension: true,
    clean: false,
    plugins: [replaced('host.js', 'compute/host-js.ts')], // nothing of Node is left
    ...QUIET,
  },
  {
    entry: { cli: 'lib/cli/main.ts' },
    format: ['esm'],
    dts: false,
    platform: 'node',
    target: 'node20',
    fixedExtension: true,
    clean: false,
    ...QUIET,
  },
]);
