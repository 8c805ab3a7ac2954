import { quantizeModel as quantizeHere } from '../calibrate/weighing/quantize.js';
import { type FilePath, pathOf } from '../files/path.js';
import type { QuantConfig } from '../matrix/config.js';
import { HqqError } from '../messages/errors.js';
import type { ConversionRun, ModelOptions } from '../models/options.js';
import type { ModelReport } from '../models/report.js';
import { beginRun, findRun } from './begin.js';
import { closeQueue, openQueue } from './connection.js';
import { followRun, restoreRun } from './follow.js';
import { type QueueOptions, resolveQueue } from './options.js';

type Options = QuantConfig & ModelOptions & ConversionRun;

/** `quantizeModel` with a queue. */
export async function quantizeOnQueue(
  from: FilePath,
  to: FilePath,
  given: string | QueueOptions,
  options: Options,
): Promise<ModelReport> {
  const input = pathOf(from, 'the input');
  const output = pathOf(to, 'the output');
  const queue = resolveQueue(given);
  const { signal, onProgress, dryRun } = options;
  if (dryRun && queue.attach) throw new HqqError('ERR_INVALID_OPTION', 'Expected attach or dryRun, got both.');
  if (dryRun) return quantizeHere(from, to, options); // plans; nobody else is needed
  signal?.throwIfAborted();
  queue.leave?.throwIfAborted();
  const opened = await openQueue(queue.url, queue.name);
  try {
    const run = queue.attach ? await findRun(output, queue) : await beginRun(input, output, options, queue, opened);
    if (queue.attach) await restoreRun(run, queue, opened);
    return { ...(await followRun(run, { queue, opened, signal, onProgress })), input, output };
  } finally {
    await closeQueue(opened);
  }
}
