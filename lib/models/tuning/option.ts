import type { QuantConfig } from '../../matrix/config.js';
import type { Option } from '../../matrix/option.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';
import { AUTO_OPTIONS } from '../../solvers/auto.js';

/** How a model's codes are tuned. */
export interface TuneOptions {
  /** Steps of each block, 1 to 100,000. @default 100 */
  readonly steps?: number | undefined;
  /**
   * What the model reads: `'own'`, a text that it writes itself; `'random'`, random tokens, as often as it expects them; `'text:<file>'` or
   * `{ text }`, a text, which needs the tokenizer as `openTokenizer` does, and which encoders read line by line. `'auto'`: `'own'`, of
   * encoders, which write none, `'random'`.
   *
   * @default 'auto'
   */
  readonly data?:
    | 'auto'
    | 'own'
    | 'random'
    | (string & {})
    | {
        /** What is read. */
        readonly text: string;
      }
    | undefined;
  /** Tokens that are trained on, 2 to 2^24; an eighth as many more are held back, by which the better of before and after is kept. @default 16384 */
  readonly tokens?: number | undefined;
  /** Texts of a step, 1 to 1024. @default 4 */
  readonly batch?: number | undefined;
  /** Tokens of a text, at most, 2 to 65,536; the model's context, where that is less. @default 512 */
  readonly length?: number | undefined;
  /**
   * How far the first step goes, in (0, 0.5]: of rounding offsets in codes, of scales as a part of them, of zeros in codes. It falls to 0 along a line.
   * `'auto'`: 0.5 / steps, so that an offset can cross a boundary in the run, and 0.05 at most.
   *
   * @default 'auto'
   */
  readonly rate?: number | 'auto' | undefined;
  /**
   * After the blocks, so many steps in which scales and zeros of all layers move together, so that the probabilities of the whole model are
   * those of the model of floats; codes stay. `true`: 16 steps, each of which takes as long as some steps of all blocks. What comes of it is kept
   * where the tokens that are held back say so.
   *
   * @default false
   */
  readonly model?: boolean | number | undefined;
  /**
   * Leaves the state where it is (`<output>.tune`) when the output is in its place: the same call again, with another `model` or none, goes on from
   * its blocks.
   *
   * @default false
   */
  readonly keep?: boolean | undefined;
  /** Begins anew, and removes what an earlier run that was stopped left beside the output (`<output>.tune`). @default false */
  readonly restart?: boolean | undefined;
}

/** The option of a model that is tuned. */
export interface TuneOption {
  /**
   * Tunes codes, scales and zeros block by block, after the solver: signed gradient steps on a rounding offset for each weight, a scale factor
   * and a shift of the zero for each group, so that the block gives, on the stream of the quantized blocks before it, what the block of floats gives on the
   * stream of floats. Of each block the better of before and after is kept, by its error on tokens that were not trained on. `true`: with all
   * defaults. Importance that is `'auto'` is that of the text that is tuned with.
   *
   * A state lies beside the output meanwhile, in `<output>.tune`: a run that was stopped goes on where it was when it is called again, and ends
   * with the same bytes. One block, its gradients and a batch are in memory at a time; the streams are in files.
   *
   * @default false
   * @throws {HqqError} `ERR_INVALID_OPTION` with `refine`, `sequential`, an option that is `'auto'`, for ONNX, whose graphs have no gradients
   *   here, for ggml's types on a curve (IQ4), and of `model` for GGUF; `ERR_CHECKPOINT_CONTENT` for a model that `hqq/runtime` does not run, for an
   *   encoder with `data: 'own'` or `model`, and for a
   *   state of another run (`restart`).
   */
  readonly tune?: boolean | TuneOptions | undefined;
}

/** The same with every default filled in. */
export interface ResolvedTune {
  readonly steps: number;
  readonly data: 'auto' | 'own' | 'random' | (string & {}) | { readonly text: string };
  readonly tokens: number;
  readonly batch: number;
  readonly length: number;
  readonly rate: number;
  /** 0: none. */
  readonly model: number;
  readonly keep: boolean;
  readonly restart: boolean;
}

/** How far the first step goes at most where nobody says: few steps that go further undo more than they gain. */
const MOST_RATE = 0.05;

/** Steps of the whole model, where nobody says how many. */
export const MODEL_STEPS = 16;

const isWhole = (least: number, most: number) => (value: unknown) =>
  Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
const whole = (text: string): unknown => (/^\d+$/.test(text.trim()) ? Number(text) : text);

/** Defaults, checks and help of what says how, in the shape of `OPTIONS` of one matrix. */
export const TUNE_OPTIONS: { readonly [K in keyof Required<TuneOptions>]: Option<Required<TuneOptions>[K]> } = {
  steps: {
    default: 100,
    expected: 'an integer in [1, 100000]',
    accepts: isWhole(1, 100_000),
    help: 'steps of each block',
    parse: whole,
  },
  data: {
    default: 'auto',
    expected: 'auto, own, random, text:<file> or { text }',
    accepts: isData,
    help: 'what is tuned with: a text that the model writes itself (own; auto, but of encoders), random tokens (random), or text:<file>',
    parse: (text) => text,
  },
  tokens: {
    default: 16384,
    expected: `an integer in [2, ${1 << 24}]`,
    accepts: isWhole(2, 1 << 24),
    help: 'tokens that are tuned with; an eighth more are held back',
    parse: whole,
  },
  batch: {
    default: 4,
    expected: 'an integer in [1, 1024]',
    accepts: isWhole(1, 1024),
    help: 'texts of a step',
    parse: whole,
  },
  length: {
    default: 512,
    expected: 'an integer in [2, 65536]',
    accepts: isWhole(2, 65_536),
    help: 'tokens of a text',
    parse: whole,
  },
  rate: {
    default: 'auto',
    expected: 'auto or a number in (0, 0.5]',
    accepts: (value) => value === 'auto' || (typeof value === 'number' && value > 0 && value <= 0.5),
    help: 'how far the first step goes, in codes; auto: 0.5 / steps, 0.05 at most',
    parse: (text) => (text !== '' && Number.isFinite(Number(text)) ? Number(text) : text),
  },
  model: {
    default: false,
    expected: 'true, false or an integer in [1, 100000]',
    accepts: (value) => typeof value === 'boolean' || isWhole(1, 100_000)(value),
    help: 'after the blocks, move scales and zeros of all layers together, in so many steps',
    parse: whole,
  },
  keep: {
    default: false,
    expected: 'true or false',
    accepts: (value) => typeof value === 'boolean',
    help: 'leave the state beside the output, from which --tune-model goes on later',
  },
  restart: {
    default: false,
    expected: 'true or false',
    accepts: (value) => typeof value === 'boolean',
    help: 'begin anew, and remove the state of a run that was stopped',
  },
};

function isData(value: unknown): boolean {
  if (typeof value === 'string')
    return ['auto', 'own', 'random'].includes(value) || (value.startsWith('text:') && value !== 'text:');
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 1) return false;
  const { text } = value as { readonly text?: unknown };
  return typeof text === 'string' && text !== '';
}

/** In the shape of `OPTIONS` of one matrix; what is in it is checked by `resolveTune`. */
export const TUNE_OPTION: Option<boolean | TuneOptions> = {
  default: false,
  expected: 'true, false or an object of options',
  accepts: (value) =>
    typeof value === 'boolean' || (typeof value === 'object' && value !== null && !Array.isArray(value)),
  help: 'tune codes block by block against the model of floats',
};

/** How codes are tuned; undefined: not at all. @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolveTune(tune: boolean | TuneOptions): ResolvedTune | undefined {
  if (tune === false) return undefined;
  const given: TuneOptions = tune === true ? {} : tune;
  rejectUnknownOptions(given, Object.keys(TUNE_OPTIONS));
  const resolved = Object.fromEntries(
    Object.entries(TUNE_OPTIONS).map(([name, { default: fallback, accepts, expected }]) => {
      const value = given[name as keyof TuneOptions] ?? fallback;
      if (accepts(value)) return [name, value];
      throw new HqqError('ERR_INVALID_OPTION', `Expected tune.${name} to be ${expected}, got ${show(value)}.`);
    }),
  ) as unknown as Required<TuneOptions> & ResolvedTune;
  const { rate, steps } = resolved;
  const model = Number((resolved.model as boolean | number) === true ? MODEL_STEPS : resolved.model);
  return { ...resolved, rate: (rate as number | 'auto') === 'auto' ? Math.min(0.5 / steps, MOST_RATE) : rate, model };
}

/** Refuses what tuning does not go with. @throws {HqqError} `ERR_INVALID_OPTION` */
export function checkTune(
  model: {
    readonly tune: boolean | TuneOptions;
    readonly refine: boolean;
    readonly sequential: boolean;
  },
  configs: readonly QuantConfig[],
): void {
  if (resolveTune(model.tune) === undefined) return;
  const refuse = (expected: string, got: unknown): never => {
    throw new HqqError('ERR_INVALID_OPTION', `Expected ${expected} with tune, got ${show(got)}.`);
  };
  if (model.refine) refuse('refine to be false', true);
  if (model.sequential) refuse('sequential to be false', true);
  for (const config of configs) {
    for (const name of AUTO_OPTIONS) if (config[name] === 'auto') refuse(`${name} to be a number`, 'auto');
  }
}
