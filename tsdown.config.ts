import { defineConfig } from 'tsdown';

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
