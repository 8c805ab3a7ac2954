import { defineConfig } from 'tsdown';

export default defineConfig([
  {
    entry: ['lib/index.ts'],
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
