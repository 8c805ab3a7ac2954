import type { FilePath } from '../../files/path.js';
import type { QuantConfig } from '../../matrix/config.js';
import type { ConversionRun, ModelOptions } from '../../models/options.js';
import { quantizeModel as quantizeWith } from '../../models/quantize/quantize.js';
import type { ModelReport } from '../../models/report.js';
import { weigh } from './weigh.js';

/** As lib/queue/entry.ts says, through which the package exports it. */
export function quantizeModel(
  input: FilePath,
  output: FilePath,
  options?: QuantConfig & ModelOptions & ConversionRun,
): Promise<ModelReport> {
  return quantizeWith(input, output, options, weigh);
}
