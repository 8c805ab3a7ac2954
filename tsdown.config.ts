import { fileURLToPath } from 'node:url';
import { defineConfig } from 'tsdown';

/** Puts lib/host-js.ts in the place of lib/host.ts, so that nothing of Node is left. */
const withoutNode = {
  name: 'without-node',
  resolveId: (id: string) => (id.endsWith('/host.js') ? fileURLToPath(new URL('lib/host-js.ts', import.meta.url)) : undefined),
};

export default defineConfig([
  {
    entry: { index: 'lib/index.ts', runtime: 'lib/runtime/index.ts' },
    format: ['esm', 'cjs'],
    dts: true,
    platform: 'node',
    target: 'node20',
    fixedExtension: true,
    clean: true,
  },
  {
    entry: { js: 'lib/js.ts' },
    format: ['esm', 'cjs'],
    dts: true,
    platform: 'neutral',
    target: 'es2022',
    fixedExtension: true,
    clean: false,
    plugins: [withoutNode],
  },
  {
    entry: { cli: 'lib/cli/main.ts' },
    format: ['esm'],
    dts: false,
    platform: 'node',
    target: 'node20',
    fixedExtension: true,
    clean: false,
  },
]);
