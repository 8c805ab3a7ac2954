import type { NBits } from '../../matrix/config.js';
import { MODEL_OPTIONS } from '../../models/options.js';
import type { ModelReport } from '../../models/report.js';
import { WIDTHS_OPTION } from '../../models/widths-option.js';
import { quantizeModel } from '../../queue/quantize.js';
import { defineCommand, toJson } from '../command.js';
import {
  type Flag,
  FORCE,
  fromOption,
  GLOBS,
  IMPORTANCE_FLAGS,
  JSON_FLAG,
  number,
  OUT,
  QUIET,
  quantConfig,
  THREADS,
} from '../flags.js';
import { OVERRIDE, toOverrides } from '../overrides.js';
import { Interruption, say } from '../process.js';
import { QUANT_FLAGS } from '../quant-flags.js';
import { QUEUE_FLAGS, queueOf } from '../queue-flags.js';
import { withProgress } from '../show/progress.js';
import { shellWord } from '../show/shell-word.js';
import { standOf } from '../show/stand.js';
import { planTable, summarize } from '../show/summary.js';
import { TUNE_FLAGS, tuneOf } from '../tune-flags.js';

/** One width, or a list of those that an output is to hold. */
const NBITS_FLAG: Flag<NBits | readonly NBits[]> = {
  ...QUANT_FLAGS.nbits,
  expected: `${QUANT_FLAGS.nbits.expected}, or of a transformers.js folder several different ones, such as 4,8`,
  parse: (given) => (given.includes(',') ? given.split(',').map(number) : number(given)),
  accepts: (value) => (Array.isArray(value) ? WIDTHS_OPTION : QUANT_FLAGS.nbits).accepts!(value),
};

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
    nbits: NBITS_FLAG,
    metaDtype: fromOption(MODEL_OPTIONS.metaDtype),
    embeddings: fromOption(MODEL_OPTIONS.embeddings),
    ...IMPORTANCE_FLAGS,
    refine: fromOption(MODEL_OPTIONS.refine),
    sequential: fromOption(MODEL_OPTIONS.sequential),
    ...TUNE_FLAGS,
    plan: fromOption(MODEL_OPTIONS.plan),
    adapter: fromOption(MODEL_OPTIONS.adapter),
    include: { ...GLOBS, help: MODEL_OPTIONS.include.help },
    exclude: { ...GLOBS, help: MODEL_OPTIONS.exclude.help },
    override: OVERRIDE,
    threads: THREADS,
    ...QUEUE_FLAGS,
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
      sequential,
      plan,
      adapter,
      include,
      exclude,
      threads,
      dryRun,
      force,
      json = false,
      quiet = false,
    } = values;
    const { nbits, ...config } = values;
    const queue = queueOf(values);
    const overrides = toOverrides(values.override);
    const tune = tuneOf(values);
    const options = {
      ...quantConfig(config),
      ...(nbits === undefined
        ? {}
        : Array.isArray(nbits)
          ? { widths: nbits as readonly NBits[] }
          : { nbits: nbits as NBits }),
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
      sequential,
      tune,
      plan,
      adapter,
      include,
      exclude,
      overrides,
      threads,
      dryRun,
      force,
    };
    return async ({ signal, print }) => {
      // Without --cancel Ctrl-C is for who follows, not for the run.
      const ends = queue === undefined || queue.cancel ? { signal } : {};
      const report = await withProgress('quantizing', !json && !quiet, (update) =>
        quantizeModel(input!, out!, {
          ...{ ...options, ...ends, onProgress: (progress) => update(standOf(progress)) },
          queue: queue && { ...queue.options, ...(queue.cancel ? {} : { leave: signal }) },
        }),
      ).catch((error: unknown) => {
        if (queue === undefined || queue.cancel || !(error instanceof Interruption)) throw error;
        say('left; the run goes on. The same command with --attach follows it; with --cancel, too, Ctrl-C ends it.');
        return error.status;
      });
      if (typeof report === 'number') return report;
      const written = report.dryRun ? undefined : report.output;
      if (json) print(toJson(report), written);
      else if (report.dryRun) print(planTable(report));
      else if (!quiet) print(`${summarize(report)}\nNext: ${nextOf(report, Array.isArray(nbits))}\n`, written);
      return 0;
    };
  },
});

/** What is looked at next: what is quantized already, or in several forms, is nothing to compare with. */
function nextOf({ input, output, requantized }: ModelReport, inForms: boolean): string {
  return requantized || inForms
    ? `hqq inspect ${shellWord(output)}`
    : `hqq compare ${shellWord(input)} ${shellWord(output)}`;
}
