import { createHash } from 'node:crypto';
import type { DType } from '../../matrix/dtype.js';
import type { HqqError } from '../../messages/errors.js';
import type { Envelope, EnvelopeChange, LinearSite, OtherTensor, TensorEntry } from '../container.js';
import { layerOf } from '../names.js';
import { numbersOf } from '../stored-types.js';
import { ByteCursor } from './cursor.js';
import type { GgufHeader, Pair } from './header.js';
import { ourName } from './language/names.js';
import type { GgufSurroundings } from './layout.js';
import { decodeValue, encodePair, type GgufValue, listedType, VALUE, VALUE_BYTES } from './values.js';

/** Bytes up to which an array is part of the description: vocabularies are not. */
const SHORT_ARRAY_BYTES = 4096;

/** What a file of floats says of itself, by their type: numbers of llama.cpp's list of file types. */
export const FILE_TYPES: { readonly [K in DType]: number } = { float32: 0, float16: 1, bfloat16: 32 };

export const FILE_TYPE_KEY = 'general.file_type';
export const QUANTIZATION_VERSION_KEY = 'general.quantization_version';

/** Numbers of the smallest blocks. */
const SMALLEST_BLOCK = 32;

/** Pairs of a file that is one of several; in one that is whole they have no place. */
const SPLIT_PAIRS = ['split.no', 'split.count', 'split.tensors.count'];

/** Matrices that llama.cpp computes with in floats, by their names: routers of experts, positions, convolutions. */
const KEPT =
  /_norm\.weight$|ffn_gate_inp|altup|laurel|per_layer_model_proj|position_embd|token_types|ssm_conv1d|shortconv\.conv|time_mix_|attn_rel_b/;

/** What surrounds the tensors of a GGUF file: its key-value pairs, byte for byte, and the order of its tensors. */
export class GgufEnvelope implements Envelope, GgufSurroundings {
  readonly notes: readonly string[];
  readonly alignment: number;
  readonly order: ReadonlyMap<string, number>;
  readonly #pairs: ReadonlyMap<string, Pair>;
  readonly #bytes: Uint8Array;
  /** Pairs in place of what the file has, in new ones' own place at the end; undefined: gone. */
  readonly #changes: ReadonlyMap<string, string | number | boolean | undefined>;
  #config: Readonly<Record<string, unknown>> | undefined;

  constructor(
    header: Pick<GgufHeader, 'pairs' | 'pairBytes' | 'alignment'>,
    order: ReadonlyMap<string, number>,
    changes: ReadonlyMap<string, string | number | boolean | undefined> = new Map(),
    notes: readonly string[] = [],
  ) {
    this.notes = notes;
    this.#pairs = header.pairs;
    this.#bytes = header.pairBytes;
    this.alignment = header.alignment;
    this.order = order;
    this.#changes = changes;
  }

  /** The pairs by their keys; long arrays, such as vocabularies, are left out: `value` gives them. */
  get config(): Readonly<Record<string, unknown>> {
    this.#config ??= Object.fromEntries(
      this.#keys().flatMap((key) => {
        const pair = this.#changes.has(key) ? undefined : this.#pairs.get(key);
        const long = pair && VALUE_BYTES[pair.type] === 0 && pair.end - pair.value > SHORT_ARRAY_BYTES;
        return long && pair.type === VALUE.array ? [] : [[key, this.value(key)]];
      }),
    );
    return this.#config;
  }

  /** The value of a pair; undefined where there is none. */
  value(key: string): GgufValue | undefined {
    if (this.#changes.has(key)) return this.#changes.get(key);
    const pair = this.#pairs.get(key);
    return pair && decodeValue(new ByteCursor(this.#bytes, key, this.#bytes.byteLength, pair.value), pair.type);
  }

  /** The value of a pair that is to be no list: one is refused, unread, however long it is. */
  scalar(key: string, refuse: (message: string) => HqqError): Exclude<GgufValue, readonly GgufValue[]> | undefined {
    const list = !this.#changes.has(key) && this.#pairs.get(key)?.type === VALUE.array;
    if (list) throw refuse(`Expected ${key} to be a single value, got a list`);
    return this.value(key) as Exclude<GgufValue, readonly GgufValue[]> | undefined;
  }

  /** The value of a pair that is to be a list of texts, or of numbers; another is refused, unread, however long it is. */
  list(key: string, of: 'string' | 'number', refuse: (message: string) => HqqError): readonly GgufValue[] | undefined {
    const pair = this.#changes.has(key) ? undefined : this.#pairs.get(key);
    if (pair === undefined) return undefined;
    const held = pair.type === VALUE.array && listedType(this.#bytes, pair.value);
    if (held !== of)
      throw refuse(`Expected ${key} to be a list of ${of}s, got ${held === false ? 'a single value' : 'another list'}`);
    return this.value(key) as readonly GgufValue[];
  }

  get pairCount(): number {
    return this.#keys().length;
  }

  get pairBytes(): Uint8Array {
    if (this.#changes.size === 0) return this.#bytes;
    return Buffer.concat(
      this.#keys().map((key) => {
        const changed = this.#changes.get(key);
        if (changed !== undefined) return encodePair(key, changed);
        const { begin, end } = this.#pairs.get(key)!;
        return this.#bytes.subarray(begin, end);
      }),
    );
  }

  get fingerprint(): string {
    return createHash('sha256').update(this.pairBytes).digest('hex');
  }

  obstacle(): undefined {}

  *linears(entries: ReadonlyMap<string, TensorEntry>): Generator<LinearSite | OtherTensor> {
    for (const entry of entries.values()) {
      const reason = reasonToStay(entry);
      if (reason !== undefined) {
        yield { entry, reason, linear: false };
        continue;
      }
      const [outs, ins] = entry.shape as readonly [number, number];
      const name = layerOf(entry.name);
      const bias = entries.get(`${name}.bias`);
      const ours = ourName(entry.name);
      const nodes = ours === undefined ? [] : [layerOf(ours)];
      yield { name, weight: entry, ...(bias ? { bias } : {}), shape: [outs, ins], stored: 'out-in', nodes };
    }
  }

  replace({ set, drop, dtype }: EnvelopeChange): GgufEnvelope {
    const changes = new Map(this.#changes);
    for (const key of drop) changes.set(key, undefined);
    for (const [key, value] of Object.entries(set)) changes.set(key, value as string | number | boolean);
    if (dtype !== undefined) changes.set(FILE_TYPE_KEY, FILE_TYPES[dtype]);
    for (const key of SPLIT_PAIRS) if (this.#pairs.has(key)) changes.set(key, undefined);
    return new GgufEnvelope(
      { pairs: this.#pairs, pairBytes: this.#bytes, alignment: this.alignment },
      this.order,
      changes,
      this.notes,
    );
  }

  companions(): readonly [] {
    return [];
  }

  #keys(): readonly string[] {
    const more = [...this.#changes.keys()].filter((key) => !this.#pairs.has(key));
    return [...this.#pairs.keys(), ...more].filter(
      (key) => !this.#changes.has(key) || this.#changes.get(key) !== undefined,
    );
  }
}

function reasonToStay({ name, type, shape }: TensorEntry): string | undefined {
  if (numbersOf(type) === undefined) return `${type.name} values`;
  if (shape.length === 3) return 'a stack of experts';
  if (shape.length !== 2) return 'no matrix';
  if (shape[0] === 0 || shape[1] === 0) return 'no numbers';
  if (!name.endsWith('.weight')) return 'not named <module>.weight';
  if (shape[1]! % SMALLEST_BLOCK !== 0) return `rows of ${shape[1]}, which fill no blocks of ${SMALLEST_BLOCK}`;
  return KEPT.test(name) ? 'llama.cpp computes with it in floats' : undefined;
}
