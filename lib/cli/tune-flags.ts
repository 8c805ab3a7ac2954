import { MODEL_STEPS, TUNE_OPTIONS, type TuneOptions } from '../models/tuning/option.js';
import { type Flag, type Flags, fromOption, kebab, UsageError, type Values } from './flags.js';

const { steps, data, tokens, batch, length, rate, model, keep, restart } = TUNE_OPTIONS;

/** `--tune`, or with its steps. */
const TUNE: Flag<true | number> = {
  ...(fromOption(steps) as Flag<never>),
  value: 'steps',
  help: `tune codes block by block against the model of floats, in so many ${steps.help}`,
  takes: (next) => /^\d+$/.test(next),
};

/** `--tune-model`, or with its steps. */
const MODEL: Flag<true | number> = {
  ...(fromOption({ ...model, default: MODEL_STEPS, expected: steps.expected }) as Flag<never>),
  value: 'steps',
  takes: (next) => /^\d+$/.test(next),
};

/** Flags of what tunes a model. */
export const TUNE_FLAGS = {
  tune: TUNE,
  tuneData: fromOption({ ...data, expected: 'auto, own, random or text:<file>' }) as Flag<string>,
  tuneTokens: fromOption(tokens) as Flag<number>,
  tuneBatch: fromOption(batch) as Flag<number>,
  tuneLength: fromOption(length) as Flag<number>,
  tuneRate: fromOption(rate) as Flag<number | 'auto'>,
  tuneModel: MODEL,
  tuneKeep: fromOption(keep) as Flag<boolean>,
  tuneRestart: fromOption(restart) as Flag<boolean>,
} satisfies Flags;

/** What they say; undefined where nothing is tuned. */
export function tuneOf(values: Values<typeof TUNE_FLAGS>): TuneOptions | undefined {
  const { tune, tuneData, tuneTokens, tuneBatch, tuneLength, tuneRate, tuneModel, tuneKeep, tuneRestart } = values;
  if (tune !== undefined) {
    return {
      ...(tune === true ? {} : { steps: tune }),
      ...{
        data: tuneData,
        tokens: tuneTokens,
        batch: tuneBatch,
        length: tuneLength,
        rate: tuneRate,
        model: tuneModel,
        keep: tuneKeep,
        restart: tuneRestart,
      },
    };
  }
  const lonely = (Object.keys(TUNE_FLAGS) as (keyof typeof TUNE_FLAGS)[]).find((key) => values[key] !== undefined);
  if (lonely === undefined) return undefined;
  throw new UsageError(`Expected --tune with --${kebab(lonely)}.`);
}
