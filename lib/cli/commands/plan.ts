import { PLAN_OPTIONS, resolvePlanOptions } from '../../allocate/options.js';
import { checkPlanOutput, savePlan } from '../../allocate/plan-file.js';
import { planModel } from '../../allocate/plan-model.js';
import type { MeasuredPlan } from '../../allocate/plan-report.js';
import { formatBytes, formatNumber, plural } from '../../messages/units.js';
import { defineCommand, toJson } from '../command.js';
import {
  FORCE,
  fromOptions,
  IMPORTANCE_FLAGS,
  JSON_FLAG,
  OUT,
  QUIET,
  quantConfig,
  THREADS,
  UsageError,
} from '../flags.js';
import { QUANT_FLAGS } from '../quant-flags.js';
import { families, times } from '../show/families.js';
import { withProgress } from '../show/progress.js';
import { shellWord } from '../show/shell-word.js';
import { standOfImportance } from '../show/stand.js';
import { table } from '../show/table.js';

const { nbits: _, groupSize: __, granularity: ___, ...CONFIG_FLAGS } = QUANT_FLAGS;
const PLAN_FLAGS = fromOptions(PLAN_OPTIONS);

export const plan = defineCommand({
  name: 'plan',
  args: ['model'],
  summary: 'find which layers of a language model need more bits',
  details: [
    'Measures what the quantization of each layer alone does to the next tokens of the model (Kullback-Leibler divergence on random tokens),',
    'gives each layer the bits with which the sum is least, and keeps that where it beats uniform bits as a whole, on other ids. Needs no',
    'text. Writes a plan that hqq quantize --plan takes, and that a person can edit. q, k and v get the same bits, so do gate and up.',
    'Models are folders that hqq/runtime runs (docs/runtime.md lists their architectures), or GGUF files of floats. A plan of a',
    'folder also fits the GGUF file that is made of it.',
  ].join('\n'),
  flags: {
    out: { ...OUT, help: 'where to write: a .json file' },
    ...PLAN_FLAGS,
    widths: { ...PLAN_FLAGS.widths, value: 'list' },
    groupSizes: { ...PLAN_FLAGS.groupSizes, value: 'list' },
    ...CONFIG_FLAGS,
    ...IMPORTANCE_FLAGS,
    threads: THREADS,
    force: FORCE,
    json: JSON_FLAG,
    quiet: QUIET,
  },
  plan([model], { out, force = false, json = false, quiet = false, ...values }) {
    const { targetBits, targetSize, widths, groupSizes, probeTokens, importance, seed, tokens, threads } = values;
    const options = {
      ...quantConfig(values),
      ...{ targetBits, targetSize, widths, groupSizes, probeTokens, importance, seed, tokens, threads },
    };
    if ((targetBits === undefined) === (targetSize === undefined))
      throw new UsageError(
        `Expected --target-bits or --target-size, got ${targetBits === undefined ? 'neither' : 'both'}.`,
      );
    resolvePlanOptions(options);
    return async ({ signal, print }) => {
      await checkPlanOutput(out!, model!, force); // before minutes of computing
      const made = await withProgress('planning', !json && !quiet, (update) =>
        planModel(model!, {
          ...{ ...options, signal },
          onProgress: ({ phase, done, total }) => {
            if (phase === 'importance') update(standOfImportance({ phase: 'reading', done, total }));
            else update({ done, total, verb: phase === 'measuring' ? 'measuring layers' : 'checking plans' });
          },
        }),
      );
      await savePlan(out!, made, force);
      if (json) print(toJson({ input: model, output: out, plan: made }), out);
      else if (!quiet) print(describe(made, model!, out!), out);
    };
  },
});

function describe({ overrides, report }: MeasuredPlan, model: string, out: string): string {
  const { kept, planned, uniform, line, curve } = report;
  const layers = Object.entries(overrides).map(([name, { nbits, groupSize }]) => ({
    name,
    bits: groupSize === undefined ? String(nbits) : `${nbits}, group ${groupSize}`,
  }));
  const rows = families(layers, ({ bits }) => bits).map(({ name, members }) => [
    ...[name, times(members.length), members[0]!.bits],
  ]);
  const size = `${formatNumber(report.bits)} bits a code, ${formatNumber(report.bitsPerWeight)} a weight with scales and zeros, ${formatBytes(report.bytes)}`;
  const scores = [
    ['planned', formatNumber(planned.bits), formatBytes(planned.bytes), planned.divergence.toPrecision(3)],
    ['uniform bits', formatNumber(uniform.bits), formatBytes(uniform.bytes), uniform.divergence.toPrecision(3)],
    ...(line === undefined ? [] : [['line between widths', formatNumber(planned.bits), '', line.toPrecision(3)]]),
  ];
  const right = { align: 'right' } as const;
  const points = curve.filter((_point, i) => i % 3 === 0);
  const verdict =
    kept === 'mixed'
      ? 'The plan beats uniform bits.'
      : 'Uniform bits were kept: what was planned is no nearer to the model than they are.';
  return [
    table([{ title: 'layers' }, { title: '' }, { title: 'bits' }], rows),
    table(
      [
        { title: 'on ids held back' },
        { title: 'bits', ...right },
        { title: 'size', ...right },
        { title: 'divergence', ...right },
      ],
      scores,
    ),
    table(
      [
        { title: 'trade-off', ...right },
        { title: 'predicted divergence', ...right },
      ],
      points.map(({ bits, bytes, loss }) => [
        bits === undefined ? formatBytes(bytes!) : formatNumber(bits),
        loss.toPrecision(3),
      ]),
    ),
    `${verdict} ${plural(layers.length, 'layer')}: ${size}\nNext: hqq quantize ${shellWord(model)} --out <path> --plan ${shellWord(out)}\n`,
  ].join('\n');
}
