import { resolveThreads } from '../../compute/run.js';
import { checkSignal } from '../../compute/signal.js';
import type { FilePath } from '../../files/path.js';
import type { Option } from '../../matrix/option.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';
import { LOAD_OPTIONS, MAX_CONTEXT } from '../load-options.js';
import { WINDOW } from '../perplexity.js';
import type { TokenIds } from '../text/ids.js';

/** Where an evaluation stands. */
export interface EvaluateProgress {
  /** The model that is being run, as it was given. */
  readonly model: string;
  /** Parts of models (blocks and heads) that are done. */
  readonly stepsDone: number;
  /** Parts in all. */
  readonly stepsTotal: number;
}

/** On what `evaluateModels` compares models, and how it runs. */
export interface EvaluateOptions {
  /** A text, which the original's tokenizer cuts into tokens. @default none: random ids */
  readonly text?: string | undefined;
  /** Token ids, in place of a text. @default none */
  readonly ids?: TokenIds | undefined;
  /**
   * Most tokens that are scored. Of random ids, so many.
   *
   * @default 2048 random ids; of a text, or of ids that are given, all
   */
  readonly tokens?: number | undefined;
  /**
   * What random ids follow from, 0 to 2^53 - 1: the same for the same seed. Importance from random ids follows from 0 unless it is told
   * otherwise: a model would be measured on what it was fitted to.
   *
   * @default 1
   */
  readonly seed?: number | undefined;
  /**
   * Tokens of a window, which is read without what came before it. A window of n scores n tokens and takes n + 1 ids, as
   * `LanguageModel.perplexity` has them.
   *
   * @default 128
   */
  readonly window?: number | undefined;
  /** How quantized layers take their input. @default 'float32' */
  readonly activations?: 'float32' | 'int8' | undefined;
  /** LoRA adapters beside the weights of all models, the original's too: a folder as peft saves it, or several, which add up. @default none */
  readonly adapter?: FilePath | readonly FilePath[] | undefined;
  /** Threads that compute, 1 to 256. @default HQQ_THREADS, else the parallelism that the system offers */
  readonly threads?: number | undefined;
  /** Aborts the call: it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called before the first part of a model and after every one. An error that it throws ends the evaluation. */
  readonly onProgress?: ((progress: EvaluateProgress) => void) | undefined;
}

/** The seed of random ids where nothing is said: not that of importance. */
const SEED = 1;
/** Random ids that are scored where nothing is said. */
const TOKENS = 2048;

const isCount = (value: unknown, least: number, most: number) =>
  Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
const natural = (text: string): unknown => (/^\d+$/.test(text.trim()) ? Number(text) : text);

/** The options that are numbers: checks, command-line flags and help read this. */
export const EVALUATE_OPTIONS = {
  tokens: {
    default: undefined,
    expected: 'an integer in [1, 1e9]',
    accepts: (value) => value === undefined || isCount(value, 1, 1e9),
    help: `most tokens that are scored (default: ${TOKENS} random ids, or all of a text)`,
    parse: natural,
  },
  seed: {
    default: SEED,
    expected: 'an integer in [0, 2^53 - 1]',
    accepts: (value) => isCount(value, 0, Number.MAX_SAFE_INTEGER),
    help: 'what random ids follow from',
    parse: natural,
  },
  window: {
    default: WINDOW,
    expected: `an integer in [1, ${MAX_CONTEXT}]`,
    accepts: (value) => isCount(value, 1, MAX_CONTEXT),
    help: 'tokens that a window scores',
    parse: natural,
  },
} as const satisfies Record<string, Option<number | undefined>>;

/** Options with every default filled in. */
export type ResolvedEvaluate = ReturnType<typeof resolveEvaluateOptions>;

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolveEvaluateOptions(given: EvaluateOptions) {
  const refuse = (expected: string, got: unknown): never => {
    throw new HqqError('ERR_INVALID_OPTION', `Expected ${expected}, got ${show(got)}.`);
  };
  if (typeof given !== 'object' || given === null) refuse('the options to be an object', given);
  const names = [
    'text',
    'ids',
    'tokens',
    'seed',
    'window',
    'activations',
    'adapter',
    'threads',
    'signal',
    'onProgress',
  ];
  rejectUnknownOptions(given, names satisfies readonly string[]);
  const { text, ids, adapter = [], signal, onProgress } = given;
  for (const name of Object.keys(EVALUATE_OPTIONS) as (keyof typeof EVALUATE_OPTIONS)[]) {
    const { accepts, expected } = EVALUATE_OPTIONS[name];
    if (given[name] !== undefined && !accepts(given[name])) refuse(`${name} to be ${expected}`, given[name]);
  }
  const { accepts, expected, default: float } = LOAD_OPTIONS.activations;
  const { activations = float } = given;
  if (!accepts(activations)) refuse(`activations to be ${expected}`, activations);
  if (text !== undefined && typeof text !== 'string') refuse('text to be a string', text);
  if (text === '') refuse('text to have something to predict', text);
  if (text !== undefined && ids !== undefined) refuse('a text or ids', 'both');
  const isRandom = text === undefined && ids === undefined;
  if (given.seed !== undefined && !isRandom) refuse('no seed where a text or ids are given', given.seed);
  if (onProgress !== undefined && typeof onProgress !== 'function') refuse('onProgress to be a function', onProgress);
  checkSignal(signal);
  const { tokens = isRandom ? TOKENS : Number.POSITIVE_INFINITY, seed = SEED, window = WINDOW } = given;
  return {
    ...{ text, ids, tokens, seed, activations, signal, onProgress },
    adapters: Object.fromEntries([adapter].flat().map((folder, i) => [String(i + 1), folder as FilePath])),
    window: isRandom ? Math.min(window, tokens) : window,
    threads: resolveThreads(given.threads),
    source: isRandom ? ('random' as const) : text === undefined ? ('ids' as const) : ('text' as const),
  };
}
