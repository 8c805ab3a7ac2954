import { createRequire } from 'node:module';

type WorkerThreads = typeof import('node:worker_threads');

let loaded: WorkerThreads | undefined;

/** Node's module for workers, loaded at the first asynchronous call: it takes a quarter of the time that importing hqq does. */
export function workerThreads(): WorkerThreads {
  // A bundler that makes CommonJS of this leaves `import.meta` empty.
  loaded ??= createRequire(import.meta.url || __filename)('node:worker_threads') as WorkerThreads;
  return loaded;
}
