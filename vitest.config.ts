import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/support/dist.ts',
    setupFiles: 'test/support/setup.ts',
    pool: 'forks',
    maxWorkers: availableParallelism(), // the default leaves one idle: half of a small machine
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
