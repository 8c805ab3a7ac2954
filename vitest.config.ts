import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Files that replace modules, or measure the memory of their process: test/architecture.test.ts knows them by their words. */
const APART = [
  'test/calibrate/give-back.test.ts',
  'test/containers/header.test.ts',
  'test/containers/reader.test.ts',
  'test/libc.test.ts',
  'test/onnx/importance.test.ts',
  'test/runtime/cache.test.ts',
];

// All others share a process for each worker, which reads lib/ once: to start one and read it takes half a second for each file.
export default defineConfig({
  test: {
    globalSetup: 'test/support/dist.ts',
    setupFiles: 'test/support/setup.ts',
    pool: 'forks',
    maxWorkers: availableParallelism(), // the default leaves one idle: half of a small machine
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'shared', isolate: false, include: ['test/**/*.test.ts'], exclude: APART } },
      { extends: true, test: { name: 'apart', include: APART } },
    ],
  },
});
