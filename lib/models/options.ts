import { checkSignal } from '../compute/signal.js';
import type { QuantConfig, ResolvedQuantConfig } from '../matrix/config.js';
import { MAX_THREADS } from '../matrix/constants.js';
import { isBoolean, type Option } from '../matrix/option.js';
import { OPTION_NAMES, resolveQuantConfig } from '../matrix/options.js';
import { overlay } from '../matrix/overlay.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { formatFor } from '../schemes/engines.js';
import { SCHEMES } from '../schemes/list.js';
import { ADAPTER_OPTION, type AdapterOption } from './adapter/option.js';
import { PLAN_OPTION, type PlanOption } from './bit-plan.js';
import { type AccuracyLevel, FORMAT_OPTIONS, type FormatOptions } from './format-options.js';
import { IMPORTANCE_OPTIONS, type ImportanceOptions, type ImportanceSource } from './importance-options.js';
import { checkRefine, REFINE_OPTIONS, type RefineOption, type ResolvedRefine } from './refine-option.js';
import type { Progress } from './report.js';
import { WIDTHS_OPTION, type WidthsOption } from './widths-option.js';

/** How scale and zero may be stored. */
const META_DTYPES = ['auto', 'float16', 'float32'] as const;
/** `auto`: float16 layer by layer where that holds scale and zero, else float32. */
export type MetaDtype = (typeof META_DTYPES)[number];

/** Bits that embeddings may be quantized to. */
const EMBEDDING_BITS = [8, 4] as const;
/** One of them. */
export type EmbeddingBits = (typeof EMBEDDING_BITS)[number];

/** What `quantizeModel` takes beside the options of one matrix. */
export interface ModelOptions extends ImportanceOptions, RefineOption, FormatOptions, PlanOption, AdapterOption {
  /**
   * Globs (`*` matches dots too): of the linear weights, quantize only those that match one. A pattern is held against the
   * tensor's name (`lm_head.weight`) and its module's (`lm_head`). Includes `lm_head` where a pattern says so.
   *
   * A pattern that is the very name of a floating-point matrix includes it, whatever it is (an embedding, `encoder.kernel`). Of a
   * model without any matrix that is called `<module>.weight`, patterns include every floating-point matrix that they match. A
   * note of the report says who will not load such layers.
   *
   * @default `[]`, which means all but `lm_head`
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a pattern that matches no weight that can be quantized.
   */
  readonly include?: string | readonly string[] | undefined;

  /**
   * Globs of weights that stay as they are; stronger than `include`.
   *
   * @default []
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a pattern that matches no tensor.
   */
  readonly exclude?: string | readonly string[] | undefined;

  /**
   * Options of the layers that a glob matches, over the others; where several match, later ones win.
   *
   * @example { '*.down_proj': { nbits: 8 }, 'model.layers.0.*': { groupSize: 32 } }
   * @default {}
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a pattern that matches no weight that is quantized.
   */
  readonly overrides?: Readonly<Record<string, QuantConfig>> | undefined;

  /**
   * Quantizes embeddings, too, to so many bits: tables that are looked up by token (`embed_tokens`, `wte`), a head that is tied to
   * one with it; not those of positions. Of ONNX files a head that shares them, too. Only `hqq` reads
   * others: `openModel` and `hqq/runtime`, which computes with them in float32; Python loads no such model. `exclude` and overrides hold
   * for them, `include` does not.
   *
   * @default undefined, which leaves embeddings as they are
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` where there are none.
   */
  readonly embeddings?: EmbeddingBits | undefined;

  /**
   * How scale and zero are stored. `'auto'`: in float16 where that holds them, else, layer by layer, in float32. Errors are
   * measured with what is stored. With `metaBits: 8` scale and zero are bytes, the numbers that
   * they stand for are float32 whatever is asked for, and this is the type of biases alone; `'auto'` is float32.
   *
   * @default 'auto'
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for `'float16'` where a value overflows to infinity.
   */
  readonly metaDtype?: MetaDtype | undefined;

  /**
   * Replace an output that exists: a safetensors file, an empty folder, or a model folder with all that is in it.
   *
   * @default false
   */
  readonly force?: boolean | undefined;

  /**
   * Only plan: read headers, choose layers, count bytes. Nothing is written; errors in the report are NaN. An output that exists,
   * without `force`, is a note of the report.
   *
   * @default false
   */
  readonly dryRun?: boolean | undefined;

  /**
   * Threads that compute, 1 to 256.
   *
   * @default HQQ_THREADS, else the parallelism that the system offers
   */
  readonly threads?: number | undefined;
}

/** What every conversion takes: how to stop it and how to follow it. */
export interface ConversionRun {
  /** Aborts: the call rejects with the signal's reason, and nothing that it wrote stays. */
  readonly signal?: AbortSignal | undefined;
  /** Called after every chunk of work. An error that it throws ends the conversion. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

type Globs = readonly string[];

/** Longest pattern. The matcher turns it into a regular expression. */
const MAX_GLOB = 1024;

export interface ResolvedModelOptions extends ResolvedRefine {
  readonly include: Globs;
  readonly exclude: Globs;
  readonly overrides: Readonly<Record<string, QuantConfig>>;
  readonly embeddings: EmbeddingBits | undefined;
  readonly widths: WidthsOption['widths'];
  readonly metaDtype: MetaDtype;
  readonly to: string | undefined;
  readonly type: string | undefined;
  readonly accuracyLevel: AccuracyLevel | undefined;
  readonly requantize: boolean;
  readonly for: string | undefined;
  readonly importance: ImportanceSource;
  readonly seed: number;
  readonly tokens: number;
  readonly plan: PlanOption['plan'];
  readonly adapter: string | undefined;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly threads: number | undefined;
}

const isGlob = (value: unknown) => typeof value === 'string' && value.trim() !== '' && value.length <= MAX_GLOB;
const isGlobs = (value: unknown) => isGlob(value) || (Array.isArray(value) && value.every(isGlob));
const isThreads = (value: unknown) =>
  value === undefined || (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MAX_THREADS);

/** What came as JSON text; text that is none stays text, so that the error shows it. */
function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The options of a model, in the shape of `OPTIONS` of one matrix: checks, command-line flags and help read it. */
export const MODEL_OPTIONS: { readonly [K in keyof ResolvedModelOptions]: Option<ResolvedModelOptions[K]> } = {
  include: {
    default: [],
    expected: 'a glob or an array of globs',
    accepts: isGlobs,
    help: 'quantize only linear weights that match this glob',
    parse: (text) => text,
  },
  exclude: {
    default: [],
    expected: 'a glob or an array of globs',
    accepts: isGlobs,
    help: 'leave weights that match this glob as they are',
    parse: (text) => text,
  },
  overrides: {
    default: {},
    expected: 'an object from globs to options, such as {"*.down_proj": {"nbits": 8}}',
    accepts: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    help: 'options per layer, as JSON: {"*.down_proj": {"nbits": 8}}',
    parse: json,
  },
  embeddings: {
    default: undefined,
    expected: `one of ${EMBEDDING_BITS.join(', ')}`,
    accepts: (value) => value === undefined || (EMBEDDING_BITS as readonly unknown[]).includes(value),
    help: 'quantize embeddings, too, to so many bits (for hqq, or of an ONNX file)',
    parse: (text) => (/^\d+$/.test(text.trim()) ? Number(text) : text),
  },
  widths: WIDTHS_OPTION,
  metaDtype: {
    default: 'auto',
    expected: `one of ${META_DTYPES.join(', ')}`,
    accepts: (value) => (META_DTYPES as readonly unknown[]).includes(value),
    help: 'type of scale and zero (with --meta-bits 8 of biases alone); auto: float16 where it holds them',
    parse: (text) => text,
  },
  ...FORMAT_OPTIONS,
  ...IMPORTANCE_OPTIONS,
  ...REFINE_OPTIONS,
  plan: PLAN_OPTION,
  adapter: ADAPTER_OPTION,
  force: {
    default: false,
    expected: 'true or false',
    accepts: isBoolean,
    help: 'replace an output that exists, a folder with all that is in it',
  },
  dryRun: { default: false, expected: 'true or false', accepts: isBoolean, help: 'only say what would be done' },
  threads: {
    default: undefined,
    expected: `an integer in [1, ${MAX_THREADS}]`,
    accepts: isThreads,
    help: 'threads that compute',
    parse: (text) => (/^\d+$/.test(text.trim()) ? Number(text) : text),
  },
};

const MODEL_OPTION_NAMES = Object.keys(MODEL_OPTIONS) as readonly (keyof ResolvedModelOptions)[];
const RUN_NAMES = ['signal', 'onProgress'] as const satisfies readonly (keyof ConversionRun)[];

/** Options of `quantizeModel`, each in its place. */
export interface ResolvedOptions {
  readonly config: ResolvedQuantConfig;
  /** The same as it was given, without defaults: these may give way where a layer needs it, what was asked for may not. */
  readonly asked: QuantConfig;
  readonly model: ResolvedModelOptions;
  readonly run: ConversionRun;
  /** Options that weights have already, by their names: under the overrides, upon what is asked of all. */
  readonly own?: ReadonlyMap<string, QuantConfig> | undefined;
}

/** @throws {HqqError} `ERR_INVALID_OPTION`, before anything is read. */
export function resolveOptions(given: QuantConfig & ModelOptions & ConversionRun): ResolvedOptions {
  checkObject(given);
  rejectUnknownOptions(given, [...OPTION_NAMES, ...MODEL_OPTION_NAMES, ...RUN_NAMES]);
  const own = Object.fromEntries(OPTION_NAMES.map((name) => [name, given[name]])) as QuantConfig;
  const model: Record<string, unknown> = {};
  // First what may decide which options of a matrix there are.
  for (const name of MODEL_OPTION_NAMES) model[name] = resolveOne(name, given[name]);
  if (model.for !== undefined) model.to ??= formatFor(model.for as string);
  const { include, exclude, overrides, to, metaDtype } = model as unknown as ResolvedModelOptions;
  const scheme = SCHEMES.find(({ name }) => name === to);
  const asked = scheme?.defaults ? overlay(scheme.defaults, own) : own;
  scheme?.check?.(asked, metaDtype);
  const config = resolveQuantConfig(asked);
  for (const [glob, override] of Object.entries(overrides)) {
    if (!isGlob(glob)) throw invalid(`Expected every key of overrides to be a glob, got ${show(glob)}.`);
    try {
      rejectUnknownOptions(override, OPTION_NAMES);
      const whole = overlay(asked, override); // an option may need the solver that is asked for
      scheme?.check?.(whole, metaDtype);
      resolveQuantConfig(whole);
    } catch (error) {
      if (!(error instanceof HqqError)) throw error;
      throw invalid(`overrides[${show(glob)}]: ${error.message}`);
    }
  }
  if ([config, ...Object.values(overrides)].some(({ trace }) => trace)) {
    throw invalid('Expected no trace of a whole model, got true: quantize gives that of one matrix.');
  }
  checkRefine(model as unknown as ResolvedModelOptions, [asked, ...Object.values(overrides)]);
  const list = (globs: string | Globs) => (typeof globs === 'string' ? [globs] : globs);
  Object.assign(model, { include: list(include), exclude: list(exclude) });
  return { config, asked, model: model as unknown as ResolvedModelOptions, run: checkRun(given) };
}

/**
 * Checks the options of a call that has few: those named, `signal`, `onProgress` and `threads`.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function checkConversion(
  given: ConversionRun & { readonly threads?: number | undefined },
  more: readonly string[] = [],
): void {
  checkObject(given);
  rejectUnknownOptions(given, [...more, 'threads', ...RUN_NAMES]);
  resolveOne('threads', given.threads);
  if ('force' in given) resolveOne('force', given.force);
  checkRun(given);
}

function resolveOne(name: keyof ResolvedModelOptions, given: unknown): unknown {
  const { default: fallback, accepts, expected } = MODEL_OPTIONS[name];
  const value = given === undefined ? fallback : given;
  if (!accepts(value)) throw invalid(`Expected ${name} to be ${expected}, got ${show(value)}.`);
  return value;
}

function checkRun({ signal, onProgress }: ConversionRun): ConversionRun {
  checkSignal(signal);
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalid(`Expected onProgress to be a function, got ${show(onProgress)}.`);
  }
  return { signal, onProgress };
}

function checkObject(given: unknown): void {
  if (typeof given !== 'object' || given === null)
    throw invalid(`Expected the options to be an object, got ${show(given)}.`);
}

function invalid(message: string): HqqError {
  return new HqqError('ERR_INVALID_OPTION', message);
}
