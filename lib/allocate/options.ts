import { resolveThreads } from '../compute/run.js';
import { checkSignal } from '../compute/signal.js';
import type { QuantConfig } from '../matrix/config.js';
import { isNumber, type Option } from '../matrix/option.js';
import { OPTION_NAMES, OPTIONS, resolveQuantConfig } from '../matrix/options.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { IMPORTANCE_OPTIONS, type ImportanceSource } from '../models/importance-options.js';

/** How far a plan is. */
export interface PlanProgress {
  /**
   * `importance`: what the errors of inputs count is being found; `measuring`: what each layer's quantization does; `checking`: what
   * whole plans do.
   */
  readonly phase: 'importance' | 'measuring' | 'checking';
  /** Of `importance` in tokens, else in blocks that were run. */
  readonly done: number;
  /** How many there will be. */
  readonly total: number;
}

/** Options of a matrix that all layers of a plan have. */
export type PlanConfig = Omit<QuantConfig, 'nbits' | 'groupSize' | 'granularity' | 'trace'>;

/** What a plan is to come to, and what it chooses from. */
export interface PlanOptions extends PlanConfig {
  /**
   * Mean bits of a code over all weights of the blocks, as `nbits` counts them: scales and zeros come on top, as many as groups of the
   * first group size take. With codes of 3.2 bits in groups of 64 a weight takes 3.7 bits. Smaller groups than the first are set off
   * against codes. Met within 1 %, from below.
   *
   * @default undefined: either this or `targetSize` is needed
   */
  readonly targetBits?: number | undefined;
  /** Bytes that the files of tensors of the output may take, or a text: `'500MB'`, `'1.5GiB'`. @default undefined */
  readonly targetSize?: number | string | undefined;
  /**
   * Bits that layers may get: 1 to 8 of 8, 6, 5, 4, 3, 2, 1.58 and 1. An engine that has 4 and 8 alone: `[4, 8]`.
   *
   * @default of 2, 3, 4 and 8 the three around the target: the two that it lies between, and the next narrower one
   */
  readonly widths?: readonly number[] | undefined;
  /** Group sizes that layers may get, the first of which plain models have. @default 64, which gives way where it does not fit */
  readonly groupSizes?: number | readonly number[] | undefined;
  /** As for `quantizeModel`; `'auto'` is `'random'`. @default 'auto' */
  readonly importance?: ImportanceSource | undefined;
  /** What random tokens follow from: of importance this, of what is measured the next, of what is checked the one after. @default 0 */
  readonly seed?: number | undefined;
  /** Tokens that importance is found with. @default 2048 */
  readonly tokens?: number | undefined;
  /** Random tokens, drawn as often as the model expects them, that every layer is measured on; whole plans are checked on four times as many, others. @default 128 */
  readonly probeTokens?: number | undefined;
  /** Threads that compute, 1 to 256. @default HQQ_THREADS, else the parallelism that the system offers */
  readonly threads?: number | undefined;
  /** Ends the call: it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called again and again. An error that it throws ends the call. */
  readonly onProgress?: ((progress: PlanProgress) => void) | undefined;
}

const UNITS: Readonly<Record<string, number>> = {
  ...{ '': 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 },
  ...{ KIB: 2 ** 10, MIB: 2 ** 20, GIB: 2 ** 30, TIB: 2 ** 40 },
};

/** Bytes that a text names; undefined where it names none. */
function bytesOf(size: unknown): number | undefined {
  if (typeof size === 'number') return Number.isSafeInteger(size) && size > 0 ? size : undefined;
  const [, digits, unit] = (typeof size === 'string' && /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(size.trim())) || [];
  const factor = unit === undefined ? undefined : UNITS[unit.toUpperCase()];
  const bytes = factor === undefined ? 0 : Math.floor(Number(digits) * factor);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}

/** Text that is no number stays text, so that the error shows what was typed. */
const number = (text: string): unknown => (text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text);
const list = (text: string): unknown => text.split(',').map(number);
const isListOf = (value: unknown, accepts: (one: unknown) => boolean): boolean =>
  Array.isArray(value) &&
  value.length >= 1 &&
  value.length <= 8 &&
  value.every(accepts) &&
  new Set(value).size === value.length;

/** The options that planning alone has: checks, flags and help read this. */
export const PLAN_OPTIONS = {
  targetBits: {
    default: undefined,
    expected: 'a number in [1, 8]',
    accepts: (value) => value === undefined || (isNumber(value) && value >= 1 && value <= 8),
    help: 'mean bits of codes over all weights; scales and zeros come on top',
    parse: number,
  } as Option<number | undefined>,
  targetSize: {
    default: undefined,
    expected: 'a size such as 500MB or 1.5GiB',
    accepts: (value) => value === undefined || bytesOf(value) !== undefined,
    help: 'most bytes of the output: 500MB, 1.5GiB',
    parse: (text) => text,
  } as Option<number | string | undefined>,
  widths: {
    default: undefined,
    expected: `different ones of ${OPTIONS.nbits.expected.replace('one of ', '')}`,
    accepts: (value) => value === undefined || isListOf(value, OPTIONS.nbits.accepts),
    help: 'bits that layers may get (default: of 2, 3, 4 and 8 the three around the target)',
    parse: list,
  } as Option<readonly number[] | undefined>,
  groupSizes: {
    default: undefined,
    expected: 'up to 8 different group sizes, such as 64,32',
    accepts: (value) =>
      value === undefined ||
      isListOf(typeof value === 'number' ? [value] : value, (one) => one !== null && OPTIONS.groupSize.accepts(one)),
    help: 'group sizes that layers may get; the first is that of plain models (default: 64)',
    parse: list,
  } as Option<number | readonly number[] | undefined>,
  probeTokens: {
    default: 128,
    expected: 'an integer in [16, 65536]',
    accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 16 && (value as number) <= 65536,
    help: 'random tokens that layers are measured on; plans are checked on four times as many',
    parse: number,
  } as Option<number>,
};

/** Widths from which those around the target are taken. */
const WIDTHS = [2, 3, 4, 8] as const;

const IMPORTANCE_NAMES = ['importance', 'seed', 'tokens'] as const;
const GIVEN_AS_LISTS: readonly string[] = ['nbits', 'groupSize', 'granularity', 'trace'];
const CONFIG_NAMES = OPTION_NAMES.filter((name) => !GIVEN_AS_LISTS.includes(name));

/** Options with every default filled in. */
export type ResolvedPlan = ReturnType<typeof resolvePlanOptions>;

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolvePlanOptions(given: PlanOptions) {
  if (typeof given !== 'object' || given === null) throw invalid('the options', 'an object', given);
  const own = Object.keys(PLAN_OPTIONS) as (keyof typeof PLAN_OPTIONS)[];
  rejectUnknownOptions(given, [...own, ...CONFIG_NAMES, ...IMPORTANCE_NAMES, 'threads', 'signal', 'onProgress']);
  const table: Readonly<Record<string, Option<unknown>>> = { ...PLAN_OPTIONS, ...IMPORTANCE_OPTIONS };
  for (const name of [...own, ...IMPORTANCE_NAMES]) {
    const { accepts, expected } = table[name]!;
    if (given[name] !== undefined && !accepts(given[name])) throw invalid(name, expected, given[name]);
  }
  const { targetBits, targetSize, signal, onProgress, groupSizes } = given;
  if ((targetBits === undefined) === (targetSize === undefined)) {
    const got = targetBits === undefined ? 'neither' : 'both';
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected targetBits or targetSize (--target-bits, --target-size), got ${got}.`,
    );
  }
  checkSignal(signal);
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalid('onProgress', 'a function', onProgress);
  const asked = CONFIG_NAMES.filter((name) => given[name as keyof PlanConfig] !== undefined);
  const config = Object.fromEntries(asked.map((name) => [name, given[name as keyof PlanConfig]])) as PlanConfig;
  const widths = [...(given.widths ?? WIDTHS)].sort((a, b) => a - b);
  for (const nbits of widths) resolveQuantConfig({ ...config, nbits: nbits as NonNullable<QuantConfig['nbits']> });
  const {
    importance = 'auto',
    seed = IMPORTANCE_OPTIONS.seed.default,
    tokens = IMPORTANCE_OPTIONS.tokens.default,
  } = given;
  return {
    ...{ config, widths, isFree: given.widths === undefined, seed, tokens, signal, onProgress },
    ...{ targetBits, targetBytes: targetSize === undefined ? undefined : bytesOf(targetSize) },
    groupSizes: groupSizes === undefined ? [undefined] : typeof groupSizes === 'number' ? [groupSizes] : groupSizes,
    importance: importance === 'auto' ? 'random' : importance,
    probeTokens: given.probeTokens ?? PLAN_OPTIONS.probeTokens.default,
    threads: resolveThreads(given.threads),
  };
}

function invalid(name: string, expected: string, got: unknown): HqqError {
  return new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be ${expected}, got ${show(got)}.`);
}
