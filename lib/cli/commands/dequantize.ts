import { plain } from '../../messages/text.js';
import { formatRate, formatSeconds, plural } from '../../messages/units.js';
import { type DequantizeReport, dequantizeModel } from '../../models/dequantize.js';
import { defineCommand, toJson } from '../command.js';
import { DTYPE, FORCE, JSON_FLAG, OUT, QUIET, THREADS } from '../flags.js';
import { withProgress } from '../show/progress.js';
import { standOf } from '../show/stand.js';
import { describeSizes } from '../show/summary.js';
import { bold, pairs } from '../show/table.js';

export const dequantize = defineCommand({
  name: 'dequantize',
  args: ['model'],
  summary: 'turn a quantized model back into an ordinary one',
  details:
    'Quantized weights, their biases included, become float32, and all other tensors stay as they are. With --dtype every\nfloating-point tensor takes that type, and config.json says so. All other files of a folder are carried over.',
  flags: { out: OUT, dtype: DTYPE, threads: THREADS, force: FORCE, json: JSON_FLAG, quiet: QUIET },
  plan([input], { out, dtype, threads, force, json = false, quiet = false }) {
    return async ({ signal, print }) => {
      const report = await withProgress('dequantizing', !json && !quiet, (update) =>
        dequantizeModel(input!, out!, {
          dtype,
          threads,
          force,
          signal,
          onProgress: (progress) => update(standOf(progress)),
        }),
      );
      if (json) print(toJson(report), report.output);
      else if (!quiet) print(describe(report), report.output);
    };
  },
});

function describe({
  input,
  output,
  dtype,
  tensors,
  weights,
  bytesBefore,
  bytesAfter,
  seconds,
  notes,
}: DequantizeReport): string {
  const rows: (readonly [string, string])[] = [
    ['dequantized', `${plural(tensors, 'tensor')}, ${plural(weights, 'weight')}, to ${dtype}`],
    ['size', describeSizes(bytesBefore, bytesAfter)],
    ['time', `${formatSeconds(seconds)} (${formatRate(weights, seconds)})`],
    ...(notes.length > 0 ? [['note', notes.map(plain).join('\n')] as const] : []),
  ];
  return `${bold(`${plain(input)} -> ${plain(output)}`)}\n\n${pairs(rows)}`;
}
