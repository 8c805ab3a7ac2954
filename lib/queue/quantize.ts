import type { FilePath } from '../files/path.js';
import type { QuantConfig } from '../matrix/config.js';
import type { ConversionRun, ModelOptions } from '../models/options.js';
import type { ModelReport } from '../models/report.js';
import type { QueueOption } from './options.js';

type Options = QuantConfig & ModelOptions & ConversionRun;

/** As entry.ts says, through which the package exports it. What a queue needs is read where there is one. */
export async function quantizeModel(
  input: FilePath,
  output: FilePath,
  options?: Options & QueueOption,
): Promise<ModelReport> {
  const { quantizeModel: quantizeHere } = await import('../calibrate/weighing/quantize.js');
  // What is no object of options is told by who takes them.
  if (typeof options !== 'object' || options === null || !('queue' in options))
    return quantizeHere(input, output, options);
  const { queue, ...own } = options;
  if (queue === undefined) return quantizeHere(input, output, own);
  return (await import('./on-queue.js')).quantizeOnQueue(input, output, queue, own);
}
