// `quantizeModel` as the package exports it, and what takes the jobs of its queue. Their code is read at the first call, as that of
// lib/models/entry.ts.
import type { FilePath } from '../files/path.js';
import type { QuantConfig } from '../matrix/config.js';
import { refuseSurplus } from '../messages/surplus.js';
import type { ConversionRun, ModelOptions } from '../models/options.js';
import type { ModelReport } from '../models/report.js';
import type { QueueOption, WorkerOptions } from './options.js';
import type { QueueWorker } from './worker.js';

/**
 * Quantizes the linear layers of a model and carries the rest over: a safetensors file into a file, a Hugging Face folder
 * into a folder that Python's `hqq` and `transformers` load. `org/name` is read from this machine's Hugging Face cache. The
 * output appears whole or not at all, and memory stays bounded whatever the size of the model.
 *
 * @example
 * const report = await quantizeModel('Llama-3.2-1B', 'Llama-3.2-1B-hqq4', { nbits: 4, groupSize: 64 });
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`, `ERR_CHECKPOINT_CONTENT`,
 *   `ERR_GROUP_SIZE` (a group size that was asked for does not divide a layer), `ERR_NON_FINITE_WEIGHT`, `ERR_OUT_OF_MEMORY`,
 *   `ERR_DEPENDENCY` (a queue without `bullmq` and `ioredis`); the signal's reason when it is aborted.
 */
export async function quantizeModel(
  input: FilePath,
  output: FilePath,
  options?: QuantConfig & ModelOptions & ConversionRun & QueueOption,
): Promise<ModelReport> {
  refuseSurplus(arguments.length, 3, 'quantizeModel(input, output, options)');
  return (await import('./quantize.js')).quantizeModel(input, output, options);
}

/**
 * Takes jobs that `quantizeModel` with a `queue` adds, until it is closed: each writes a shard of a model. Any number of workers, on any
 * machines that see the same folders, come to the bytes of one machine, whichever of them are lost meanwhile.
 *
 * @example
 * const worker = await createWorker({ url: 'redis://queue:6379', root: '/models' });
 * process.once('SIGTERM', () => worker.close());
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_DEPENDENCY` (without `bullmq` and `ioredis`), `ERR_IO`
 */
export async function createWorker(options: WorkerOptions): Promise<QueueWorker> {
  refuseSurplus(arguments.length, 1, 'createWorker(options)');
  return (await import('./worker.js')).createWorker(options);
}
