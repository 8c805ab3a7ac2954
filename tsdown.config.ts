import { defineConfig } from 'tsdown';

/** Warnings and errors only; how long plugins took is no concern of users who build. */
const QUIET = { logLevel: 'warn', inputOptions: { checks: { pluginTimings: false } } } as const;

export default defineConfig([
  {
    entry: { index: 'lib/index.ts', runtime: 'lib/runtime/index.ts' },
    format: ['esm', 'cjs'],
    dts: true,
    platform: 'node',
    target: 'node20',
    shims: true,
    fixedExtension: true,
    clean: true,
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
