import type { FilePath } from '../files/path.js';
import type { QuantConfig } from '../matrix/config.js';
import { HqqError } from '../messages/errors.js';
import type { ConversionRun, ModelOptions } from '../models/options.js';
import type { ModelReport } from '../models/report.js';
import type { QueueOption } from './options.js';

/** Why what tunes has no queue. */
const WHY = 'since each block is tuned on what those before it give: one machine does it';

type Options = QuantConfig & ModelOptions & ConversionRun;

/** As entry.ts says, through which the package exports it. What a queue needs is read where there is one. */
export async function quantizeModel(
  input: FilePath,
  output: FilePath,
  options?: Options & QueueOption,
): Promise<ModelReport> {
  const { quantizeModel: quantizeHere } = await import('../calibrate/weighing/quantize.js');
  // What is no object of options is told by who takes them.
  if (typeof options !== 'object' || options === null) return quantizeHere(input, output, options);
  const tunes = 'tune' in options && options.tune !== undefined && options.tune !== false;
  const { queue, ...own } = options;
  if (queue !== undefined) {
    if (tunes) throw new HqqError('ERR_INVALID_OPTION', `Expected no tuning (tune, --tune) with a queue, ${WHY}.`);
    return (await import('./on-queue.js')).quantizeOnQueue(input, output, queue, own);
  }
  if (!tunes) return quantizeHere(input, output, 'queue' in options ? own : options);
  return (await import('../tune/quantize.js')).quantizeModel(input, output, own);
}
