import { dequantizeModel } from '../checkpoint/dequantize-model.js';
import { defineCommand, toJson } from './command.js';
import { DTYPE, FORCE, JSON_FLAG, OUT, QUIET, THREADS } from './flags.js';
import { withProgress } from './progress.js';

export const dequantize = defineCommand({
  name: 'dequantize',
  args: ['model'],
  summary: 'turn a quantized model back into an ordinary one',
  flags: { out: OUT, dtype: DTYPE, threads: THREADS, force: FORCE, json: JSON_FLAG, quiet: QUIET },
  plan([input], { out, dtype, threads, force, json = false, quiet = false }) {
    return async ({ signal, print }) => {
      const report = await withProgress('dequantizing', !json && !quiet, (bar) =>
        dequantizeModel(input!, out!, { dtype, threads, force, signal, onProgress: bar.update }),
      );
      if (json) print(toJson(report));
    };
  },
});
