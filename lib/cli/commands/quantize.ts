import { quantizeModel } from '../../calibrate/weighing/quantize.js';
import { MODEL_OPTIONS } from '../../models/options.js';
import type { ModelReport } from '../../models/report.js';
import { defineCommand, toJson } from '../command.js';
import { FORCE, fromOption, GLOBS, IMPORTANCE_FLAGS, JSON_FLAG, OUT, QUIET, quantConfig, THREADS } from '../flags.js';
import { OVERRIDE, toOverrides } from '../overrides.js';
import { QUANT_FLAGS } from '../quant-flags.js';
import { withProgress } from '../show/progress.js';
import { shellWord } from '../show/shell-word.js';
import { standOf } from '../show/stand.js';
import { planTable, summarize } from '../show/summary.js';

export const quantize = defineCommand({
  name: 'quantize',
  args: ['model'],
  summary: 'make the weights of a model small',
  details: [
    'Quantizes the weights of linear layers: matrices that are no embeddings, norms or lm_head, unless --include and',
    '--exclude say otherwise. Everything else is carried over, with all other files of a folder.',
  ].join('\n'),
  flags: {
    out: OUT,
    to: fromOption(MODEL_OPTIONS.to),
    for: fromOption(MODEL_OPTIONS.for),
    type: fromOption(MODEL_OPTIONS.type),
    accuracyLevel: fromOption(MODEL_OPTIONS.accuracyLevel),
    requantize: fromOption(MODEL_OPTIONS.requantize),
    ...QUANT_FLAGS,
    metaDtype: fromOption(MODEL_OPTIONS.metaDtype),
    embeddings: fromOption(MODEL_OPTIONS.embeddings),
    ...IMPORTANCE_FLAGS,
    refine: fromOption(MODEL_OPTIONS.refine),
    plan: fromOption(MODEL_OPTIONS.plan),
    include: { ...GLOBS, help: MODEL_OPTIONS.include.help },
    exclude: { ...GLOBS, help: MODEL_OPTIONS.exclude.help },
    override: OVERRIDE,
    threads: THREADS,
    dryRun: fromOption(MODEL_OPTIONS.dryRun),
    force: FORCE,
    json: JSON_FLAG,
    quiet: QUIET,
  },
  plan([input], values) {
    const {
      out,
      to,
      for: engine,
      type,
      accuracyLevel,
      requantize,
      metaDtype,
      embeddings,
      importance,
      seed,
      tokens,
      refine,
      plan,
      include,
      exclude,
      threads,
      dryRun,
      force,
      json = false,
      quiet = false,
    } = values;
    const overrides = toOverrides(values.override);
    const options = {
      ...quantConfig(values),
      to,
      for: engine,
      type,
      accuracyLevel,
      requantize,
      metaDtype,
      embeddings,
      importance,
      seed,
      tokens,
      refine,
      plan,
      include,
      exclude,
      overrides,
      threads,
      dryRun,
      force,
    };
    return async ({ signal, print }) => {
      const report = await withProgress('quantizing', !json && !quiet, (update) =>
        quantizeModel(input!, out!, { ...options, signal, onProgress: (progress) => update(standOf(progress)) }),
      );
      const written = report.dryRun ? undefined : report.output;
      if (json) print(toJson(report), written);
      else if (report.dryRun) print(planTable(report));
      else if (!quiet) print(`${summarize(report)}\nNext: ${nextOf(report)}\n`, written);
    };
  },
});

/** What is looked at next: what is quantized already is nothing to compare with. */
function nextOf({ input, output, requantized }: ModelReport): string {
  return requantized ? `hqq inspect ${shellWord(output)}` : `hqq compare ${shellWord(input)} ${shellWord(output)}`;
}
