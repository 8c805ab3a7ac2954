import { checkSignal } from '../../compute/signal.js';
import type { Option } from '../../matrix/option.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';
import { type AdapterChoice, checkChoice } from '../adapters.js';
import type { KvCache } from '../blocks/cache.js';
import { formatStart, type TextFormat } from './json/json-text.js';
import type { States } from './json/states.js';
import type { SamplingOptions } from './sampling.js';

/** How a text goes on. */
export interface GenerateOptions {
  /** Most tokens to generate. @default 256 */
  readonly maxTokens?: number | undefined;
  /** Spread of the choice: 0 always takes the likeliest token, 1 draws as the model says. The next three and `seed` need one. @default 0 */
  readonly temperature?: number | undefined;
  /** Draw from the likeliest k tokens; 0: from all. @default 0 */
  readonly topK?: number | undefined;
  /** Draw from the fewest tokens that have this much of the probability, in (0, 1]. @default 1 */
  readonly topP?: number | undefined;
  /** Draw from tokens that are at least this fraction as likely as the likeliest, in [0, 1]. @default 0 */
  readonly minP?: number | undefined;
  /** Divides positive logits (multiplies negative ones) of tokens that occurred; 1: off. An error with a `cache` that holds some. @default 1 */
  readonly repetitionPenalty?: number | undefined;
  /** The same seed, the same text. Default: another one each time. */
  readonly seed?: number | undefined;
  /** Tell of each token how likely it was, and of so many of the likeliest, 0 to 20. Default: not at all. */
  readonly logprobs?: number | undefined;
  /**
   * `'json'`: the text is one JSON object, whatever the model would rather say, and ends with it; unless `maxTokens` or the context end it
   * before. `{ schema }`: likewise, a value of that JSON schema, which is of objects or lists: types, `properties`, `required`,
   * `additionalProperties`, `items`, `prefixItems`, `enum`, `const`, `anyOf`, `$ref` within it, bounds of numbers and lengths; `oneOf` is read as
   * `anyOf`, `format` is a note, and what no text can be kept to (`pattern`, `not`, `allOf` of several) is an error, as are
   * more than 256 alternatives at one place. Needs the tokenizer. Ask for JSON in the prompt, too. Default: any text.
   */
  readonly format?: TextFormat | undefined;
  /** Texts that end the generation, and are not part of it. Needs the tokenizer. @default [] */
  readonly stop?: string | readonly string[] | undefined;
  /**
   * Goes on after what this cache of the model's holds (`createCache`): the prompt is what comes next. Afterwards it holds the prompt and every
   * token but the last, the beginning of what is read next. No other call may use it meanwhile. Crossing where `longrope` changes is an error.
   */
  readonly cache?: KvCache | undefined;
  /**
   * Adapters that the model was loaded with (`adapters`) and that the text is read and written with, by name: one, or several, which add up. A
   * `cache` that holds something goes on with those that it was read with alone.
   *
   * @default none
   */
  readonly adapter?: AdapterChoice | undefined;
  /** Ends the generation: the iterator throws the signal's reason, within milliseconds. */
  readonly signal?: AbortSignal | undefined;
}

type Tuning = SamplingOptions & { readonly maxTokens: number };

/** Options with every default filled in. */
export interface ResolvedGenerateOptions extends Tuning {
  readonly stop: readonly string[];
  readonly cache: KvCache | undefined;
  readonly adapter: AdapterChoice | undefined;
  readonly logprobs: number | undefined;
  /** How a text of the format begins. */
  readonly format: States | undefined;
  readonly signal: AbortSignal | undefined;
}

const isNumber = (least: number, most: number) => (value: unknown) =>
  typeof value === 'number' && value >= least && value <= most;
const isInteger = (least: number, most: number) => (value: unknown) =>
  Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
const number = (text: string): unknown => (text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text);

/** Most tokens of one call. */
export const MAX_TOKENS = 1 << 24;

/** The options that are numbers: checks, command-line flags and help read this. */
export const GENERATE_OPTIONS: { readonly [K in keyof Tuning]: Option<Tuning[K]> } = {
  maxTokens: {
    default: 256,
    expected: `an integer in [1, ${MAX_TOKENS}]`,
    accepts: isInteger(1, MAX_TOKENS),
    help: 'most tokens to generate',
    parse: number,
  },
  temperature: {
    default: 0,
    expected: 'a number in [0, 100]',
    accepts: (value) => value === 0 || isNumber(1e-3, 100)(value),
    help: 'spread of the choice; 0 always takes the likeliest token; top-k, top-p, min-p and seed need one',
    parse: number,
  },
  topK: {
    default: 0,
    expected: 'an integer, at least 0',
    accepts: isInteger(0, Number.MAX_SAFE_INTEGER),
    help: 'draw from the likeliest k tokens; 0: from all',
    parse: number,
  },
  topP: {
    default: 1,
    expected: 'a number in (0, 1]',
    accepts: (value) => isNumber(0, 1)(value) && value !== 0,
    help: 'draw from the fewest tokens that have this much of the probability',
    parse: number,
  },
  minP: {
    default: 0,
    expected: 'a number in [0, 1]',
    accepts: isNumber(0, 1),
    help: 'draw from tokens at least this fraction as likely as the likeliest',
    parse: number,
  },
  repetitionPenalty: {
    default: 1,
    expected: 'a number in [0.1, 10]',
    accepts: isNumber(0.1, 10),
    help: 'makes tokens that occurred less likely; 1: off',
    parse: number,
  },
  seed: {
    default: undefined,
    expected: 'an integer, at least 0',
    accepts: (value) => value === undefined || isInteger(0, Number.MAX_SAFE_INTEGER)(value),
    help: 'the same seed, the same text',
    parse: number,
  },
};

const NAMES = Object.keys(GENERATE_OPTIONS) as readonly (keyof Tuning)[];

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolveGenerateOptions(options: GenerateOptions): ResolvedGenerateOptions {
  if (typeof options !== 'object' || options === null)
    throw invalid(`Expected the options to be an object, got ${show(options)}.`);
  rejectUnknownOptions(options, [...NAMES, 'stop', 'cache', 'adapter', 'logprobs', 'format', 'signal']);
  const resolved: Record<string, unknown> = {};
  for (const name of NAMES) {
    const { default: fallback, accepts, expected } = GENERATE_OPTIONS[name];
    const value = options[name] ?? fallback;
    if (!accepts(value)) throw invalid(`Expected ${name} to be ${expected}, got ${show(value)}.`);
    resolved[name] = value;
  }
  rejectUndrawn(options);
  const { stop = [], cache, adapter, logprobs, format, signal } = options;
  checkChoice(adapter);
  if (logprobs !== undefined && !isInteger(0, 20)(logprobs))
    throw invalid(`Expected logprobs to be an integer in [0, 20], got ${show(logprobs)}.`);
  const stops = typeof stop === 'string' ? [stop] : stop;
  if (!Array.isArray(stops) || !stops.every((text) => typeof text === 'string' && text !== '')) {
    throw invalid(`Expected stop to be texts that are not empty, got ${show(stop)}.`);
  }
  checkSignal(signal);
  const start = format === undefined ? undefined : startOf(format);
  return { ...(resolved as unknown as Tuning), stop: stops, cache, adapter, logprobs, format: start, signal };
}

function startOf(format: TextFormat): States {
  if (format === 'json' || (typeof format === 'object' && format !== null && 'schema' in format))
    return formatStart(format);
  throw invalid(`Expected format to be 'json' or { schema }, got ${show(format)}.`);
}

/**
 * Without a temperature the likeliest token is taken, and what says how to draw does nothing: told, not ignored. A temperature of 0
 * that is given is meant so.
 */
function rejectUndrawn(options: GenerateOptions): void {
  if ((options.temperature ?? undefined) !== undefined) return;
  for (const name of ['topK', 'topP', 'minP', 'seed'] as const) {
    const value = options[name] ?? undefined;
    if (value === undefined || value === GENERATE_OPTIONS[name].default) continue;
    const message = `Expected a temperature with ${name}: without one the likeliest token is always taken.`;
    throw invalid(`${message} Give one, such as temperature 1 (--temperature 1), or leave ${name} out.`);
  }
}

export function invalid(message: string): HqqError {
  return new HqqError('ERR_INVALID_OPTION', message);
}
