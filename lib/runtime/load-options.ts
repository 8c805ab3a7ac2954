import { resolveThreads } from '../compute/run.js';
import { checkSignal } from '../compute/signal.js';
import type { FilePath } from '../files/path.js';
import type { Option } from '../matrix/option.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { resolveAdapters } from './adapters.js';
import { CACHE_DTYPES, type CacheDtype } from './blocks/cache.js';

/** How a language model is loaded. */
export interface LoadLanguageModelOptions {
  /**
   * How quantized layers take their input: `'float32'` as it is, `'int8'` quantized on the fly, faster and less exact.
   * Layers whose
   * weights are floating-point always compute in float32.
   *
   * @default 'float32'
   */
  readonly activations?: 'float32' | 'int8' | undefined;
  /**
   * What the last layer, which gives logits, and the table of tokens are in memory where they are floats in the file. `'int8'`: 8 bits in
   * groups of 64 (the largest divisor of `hiddenSize` up to that, from 16; where there is none, float32), a quarter of the memory and, as the head is
   * read for every token, of its time. A pair that is tied is kept once.
   *
   * @default 'int8' where the layers of the blocks are quantized, else 'float32'
   */
  readonly head?: 'float32' | 'int8' | undefined;
  /**
   * What keys and values of texts are kept as: a position takes `2 * layers * kvHeads * headDim` numbers of 4, 2 or 1 bytes. `'int8'`: codes of
   * 8 bits in groups of up to 64 of a head, with a scale and a least element each, an eighth of a byte a number more; attention over
   * long texts reads as much less from memory.
   *
   * @default 'float32'
   */
  readonly cacheDtype?: 'float32' | 'float16' | 'int8' | undefined;
  /** Threads that compute, 1 to 256. @default HQQ_THREADS, else the parallelism that the system offers */
  readonly threads?: number | undefined;
  /**
   * Most positions of a text: prompt and generated tokens. More than the model was trained for is possible, and its business.
   *
   * @default what config.json says, stretched as its rotary scaling says
   */
  readonly maxContext?: number | undefined;
  /**
   * Most texts whose next tokens are read together, 1 to 256: `generate` calls at the same time share the steps of decoding, so that the
   * weights come from memory once for all. More texts than that take turns. What a text says does not depend on it.
   *
   * @default 8
   */
  readonly maxBatch?: number | undefined;
  /**
   * Bytes that the caches of texts that have ended may take: one that begins as an earlier one did (the next turn of a chat, the same system
   * prompt) does not read that again. The least recently used go. 0: none is kept.
   *
   * @default 268435456 (256 MiB)
   */
  readonly prefixBytes?: number | undefined;
  /**
   * LoRA adapters that stay beside the weights: folders as peft saves them (`adapter_config.json`, `adapter_model.safetensors`), by the name
   * that calls choose them by (`adapter` of `generate`, `chat`, `forward`, `perplexity`). Their matrices are in memory as float32, the model's
   * weights once for all. A linear layer adds `scale * B (A x)` to the rows of texts that have one. What `hqq quantize --adapter` refuses, is refused.
   *
   * @default none
   */
  readonly adapters?: Readonly<Record<string, FilePath>> | undefined;
  /** Ends the loading: the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Largest context: positions are counted in 32 bits, and rotary tables are kept for all of them. */
export const MAX_CONTEXT = 1 << 24;

/** Largest batch: attention of each text is a step of its own, and their arguments are kept. */
const MAX_BATCH = 256;

const ACTIVATIONS = ['float32', 'int8'] as const;

interface Tuning {
  readonly activations: (typeof ACTIVATIONS)[number];
  readonly head: (typeof ACTIVATIONS)[number] | undefined;
  readonly maxContext: number | undefined;
  readonly maxBatch: number;
  readonly prefixBytes: number;
  readonly cacheDtype: CacheDtype;
}

const whole = (text: string): unknown => (/^\d+$/.test(text.trim()) ? Number(text) : text);

/** The options that say how a model computes: checks, command-line flags and help read this. */
export const LOAD_OPTIONS: { readonly [K in keyof Tuning]: Option<Tuning[K]> } = {
  activations: {
    default: 'float32',
    expected: `one of ${ACTIVATIONS.join(', ')}`,
    accepts: (value) => (ACTIVATIONS as readonly unknown[]).includes(value),
    help: 'how quantized layers take their input',
    parse: (text) => text,
  },
  head: {
    default: undefined,
    expected: `one of ${ACTIVATIONS.join(', ')}`,
    accepts: (value) => value === undefined || (ACTIVATIONS as readonly unknown[]).includes(value),
    help: 'what head and embedding are in memory; without it int8 where layers are quantized',
    parse: (text) => text,
  },
  maxContext: {
    default: undefined,
    expected: `an integer in [1, ${MAX_CONTEXT}]`,
    accepts: (value) =>
      value === undefined ||
      (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MAX_CONTEXT),
    help: 'most tokens of a text, prompt and all',
    parse: whole,
  },
  maxBatch: {
    default: 8,
    expected: `an integer in [1, ${MAX_BATCH}]`,
    accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MAX_BATCH,
    help: 'most texts whose next tokens are read together',
    parse: whole,
  },
  prefixBytes: {
    default: 256 * 1024 * 1024,
    expected: 'an integer, at least 0',
    accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
    help: 'memory for texts that have ended, which others may begin as',
    parse: whole,
  },
  cacheDtype: {
    default: 'float32',
    expected: `one of ${CACHE_DTYPES.join(', ')}`,
    accepts: (value) => (CACHE_DTYPES as readonly unknown[]).includes(value),
    help: 'what keys and values of texts are kept as',
    parse: (text) => text,
  },
};

const NAMES = [
  ...(Object.keys(LOAD_OPTIONS) as (keyof Tuning)[]),
  'adapters',
  'threads',
  'signal',
] as const satisfies (keyof LoadLanguageModelOptions)[];

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolveLoadOptions(
  options: LoadLanguageModelOptions,
  names: readonly (keyof LoadLanguageModelOptions)[] = NAMES,
): Tuning & { adapters: ReadonlyMap<string, string>; threads: number; signal: AbortSignal | undefined } {
  if (typeof options !== 'object' || options === null) {
    throw new HqqError('ERR_INVALID_OPTION', `Expected the options to be an object, got ${show(options)}.`);
  }
  rejectUnknownOptions(options, names);
  const resolve = <K extends keyof Tuning>(name: K): Tuning[K] => {
    const { default: fallback, accepts, expected } = LOAD_OPTIONS[name];
    const value = options[name] ?? fallback;
    if (!accepts(value))
      throw new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be ${expected}, got ${show(value)}.`);
    return value as Tuning[K];
  };
  const { adapters, threads, signal } = options;
  checkSignal(signal);
  return {
    activations: resolve('activations'),
    head: resolve('head'),
    maxContext: resolve('maxContext'),
    maxBatch: resolve('maxBatch'),
    prefixBytes: resolve('prefixBytes'),
    cacheDtype: resolve('cacheDtype'),
    adapters: resolveAdapters(adapters),
    threads: resolveThreads(threads),
    signal,
  };
}
