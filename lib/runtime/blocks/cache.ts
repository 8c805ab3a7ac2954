import type { CacheSegment } from '../../../binding.js';
import { largeFloats } from '../../compute/memory.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import { CACHE_GROUP, CACHE_TYPES, KEY_STRIP } from '../../matrix/constants.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import { refuseSurplus } from '../../messages/surplus.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import { type Adapters, refuseOthers, sameAdapters } from './lora.js';
import { elementsOf, overlaps, type Range } from './segments.js';
import { Turned } from './turned.js';

/** What keys and values may be kept as. */
export const CACHE_DTYPES = CACHE_TYPES.map(({ name }) => name);
export type CacheDtype = (typeof CACHE_DTYPES)[number];

/** Keys and values of one layer, as `AttentionArgs` of binding.d.ts says. */
export interface LayerCache {
  readonly cacheType: number;
  readonly segments: readonly CacheSegment[];
}

/** Positions that a cache has room for at first. */
const FIRST_CAPACITY = 256;

/** Most positions that room is made for before they are asked for. */
const MOST_AHEAD = 4096;

/** Floats of an array that several layers share. Node 20 has none of more than 4 GiB. */
const LONGEST = 1 << 28;

/** @throws {HqqError} `ERR_INVALID_ARGUMENT` unless it is the cache of a model of that shape. */
export function checkCache(cache: unknown, config: LanguageModelConfig): void {
  const expected = "Expected cache to be one of the model's, from createCache()";
  if (!(cache instanceof KvCache)) throw new HqqError('ERR_INVALID_ARGUMENT', `${expected}, got ${show(cache)}.`);
  if (!cache.fits(config)) throw new HqqError('ERR_INVALID_ARGUMENT', `${expected}, got that of another model.`);
}

/** What a model remembers of one text: keys and values of every position so far. Each text has its own. */
export class KvCache {
  /** Most positions that it may hold. */
  readonly maxPositions: number;
  /** Positions that there will be, as far as is known: no room is made ahead for more. @internal */
  expected = Infinity;
  readonly #config: LanguageModelConfig;
  readonly #layerCount: number;
  readonly #cacheType: number;
  /** Of each segment, the part of each layer. */
  #segments: readonly (readonly CacheSegment[])[] = [];
  #layers: readonly LayerCache[] = [];
  #capacity = 0;
  #length = 0;
  #busy = false;
  readonly #turned: Turned;
  #adapters: Adapters = [];
  #logits: OwnedFloat32Array | undefined;
  /** By owner, who holds weights: so a cache keeps none alive. */
  #prepared = new WeakMap<object, unknown>();

  /**
   * @internal Use `model.createCache()`.
   * @param layers How many layers' keys and values there are.
   */
  constructor(
    config: LanguageModelConfig,
    maxPositions: number,
    dtype: CacheDtype = 'float32',
    layers = config.layers,
  ) {
    this.#config = config;
    this.maxPositions = maxPositions;
    this.#layerCount = layers;
    this.#cacheType = CACHE_DTYPES.indexOf(dtype);
    this.#turned = new Turned(config);
  }

  /** Positions that it holds. */
  get length(): number {
    return this.#length;
  }

  /** Bytes that keys and values take. */
  get bytes(): number {
    return this.#bytesOf(this.#capacity);
  }

  /** Bytes that they would take if the cache had room for no more than it holds. @internal */
  get neededBytes(): number {
    return this.#bytesOf(this.#strips(Math.max(FIRST_CAPACITY, this.#length)));
  }

  /** Forgets all positions from `length` on. */
  truncate(length: number): void {
    refuseSurplus(arguments.length, 1, 'cache.truncate(length)');
    this.#checkIdle();
    if (Number.isSafeInteger(length) && length >= 0 && length <= this.#length) this.#length = length;
    else
      throw new HqqError(
        'ERR_INVALID_ARGUMENT',
        `Expected length to be an integer in [0, ${this.#length}], got ${length}.`,
      );
  }

  /**
   * Makes room for `rows` more positions and runs `body`, which writes them; they count once it is done. Whatever fails, the
   * cache is as it was.
   *
   * @internal
   */
  async extend<T>(rows: number, body: (start: number) => Promise<T>): Promise<T> {
    this.#checkIdle();
    const end = this.#length + rows;
    if (end > this.maxPositions) {
      const message = `Expected at most ${this.maxPositions} positions, got ${end}.`;
      throw new HqqError('ERR_INVALID_ARGUMENT', `${message} maxContext (--max-context) sets the limit.`);
    }
    this.#turned.check(this.#length, end);
    this.#busy = true;
    try {
      await this.#reserve(end);
      const result = await body(this.#length);
      this.#turned.note(end);
      this.#length = end;
      return result;
    } finally {
      this.#busy = false;
    }
  }

  /**
   * Takes the first `length` positions that another cache of the same model holds, in place of its own.
   *
   * @internal
   */
  async copyFrom(other: KvCache, length: number): Promise<void> {
    this.#checkIdle();
    this.#busy = true;
    try {
      this.#length = 0;
      const from = other.#segments; // it may grow meanwhile
      await this.#reserve(length);
      for (const [old, now, range] of overlaps(from, this.#segments, length)) {
        for (const [i, segment] of old.entries()) await this.#copy(segment, now[i]!, range);
      }
      this.#turned.copyFrom(other.#turned);
      this.#length = length;
    } finally {
      this.#busy = false;
    }
  }

  /** Adapters that its positions were read with, and that the next ones are. @internal */
  get adapters(): Adapters {
    return this.#adapters;
  }

  /**
   * Lets what comes next be read with these adapters.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` where it holds positions that were read with others
   * @internal
   */
  adapt(adapters: Adapters): void {
    if (sameAdapters(adapters, this.#adapters)) return;
    this.#checkIdle();
    if (this.#length > 0) refuseOthers(this.#length, this.#adapters, adapters);
    this.#adapters = adapters;
    this.#renew();
  }

  /** Whether `rows` more positions may be read after those that it holds; else, only the whole text into it when empty. @internal */
  goesOn(rows: number): boolean {
    return this.#turned.goesOn(this.#length, this.#length + rows);
  }

  /** Whether it holds what a model of that shape remembers. @internal */
  fits({ layers, kvHeads, headDim, vocabSize }: LanguageModelConfig): boolean {
    const own = this.#config;
    const same = own.kvHeads === kvHeads && own.headDim === headDim && own.vocabSize === vocabSize;
    return same && this.#layerCount === layers;
  }

  /** Keys and values of a layer. @internal */
  layer(layer: number): LayerCache {
    return this.#layers[layer]!;
  }

  /**
   * What `make` gives, which may point to keys and values: kept for `owner`, and made anew when these have moved.
   *
   * @internal
   */
  prepared<T>(owner: object, make: () => T): T {
    if (!this.#prepared.has(owner)) this.#prepared.set(owner, make());
    return this.#prepared.get(owner) as T;
  }

  /** Where the logits of a text's last position go. @internal */
  get logits(): OwnedFloat32Array {
    this.#logits ??= new Float32Array(this.#config.vocabSize);
    return this.#logits;
  }

  /** Two calls at once would write the same rows. */
  #checkIdle(): void {
    if (this.#busy)
      throw new HqqError(
        'ERR_INVALID_ARGUMENT',
        'Expected the cache to be idle, got a call while another one fills it.',
      );
  }

  /** Positions rounded up to whole strips, within the most that there may be. */
  #strips(positions: number): number {
    return Math.ceil(Math.min(this.maxPositions, positions) / KEY_STRIP) * KEY_STRIP;
  }

  /** Elements of a position in one layer's keys, or values, and floats that go with them. */
  get #widths(): { readonly row: number; readonly meta: number } {
    const { kvHeads, headDim } = this.#config;
    const groups = this.#cacheType === CACHE_DTYPES.indexOf('int8') ? Math.ceil(headDim / CACHE_GROUP) : 0;
    return { row: kvHeads * headDim, meta: 2 * kvHeads * groups };
  }

  /** Floats that keys, or values, of a layer take, and what goes with them. */
  #floatsOf(capacity: number): { readonly rows: number; readonly meta: number } {
    const { row, meta } = this.#widths;
    const { bytes } = CACHE_TYPES[this.#cacheType]!;
    return { rows: (capacity * row * bytes) / Float32Array.BYTES_PER_ELEMENT, meta: capacity * meta };
  }

  #bytesOf(capacity: number): number {
    const { rows, meta } = this.#floatsOf(capacity);
    return this.#layerCount * 2 * (rows + meta) * Float32Array.BYTES_PER_ELEMENT;
  }

  /** Makes room: another segment, as large as all before it up to a limit, so that nothing is moved. */
  async #reserve(positions: number): Promise<void> {
    if (positions <= this.#capacity) return;
    const ahead = this.#capacity + Math.min(MOST_AHEAD, Math.max(FIRST_CAPACITY, this.#capacity));
    const room = positions > this.expected ? ahead : Math.min(ahead, this.expected);
    const capacity = this.#strips(Math.max(positions, room)) - this.#capacity;
    this.#segments = [...this.#segments, await this.#allocate(capacity)];
    this.#capacity += capacity;
    this.#renew();
  }

  /** What was prepared for the cache as it was is of no use: others know by its layers, which are new. */
  #renew(): void {
    this.#layers = Array.from({ length: this.#layerCount }, (_, layer) => ({
      cacheType: this.#cacheType,
      segments: this.#segments.map((segment) => segment[layer]!),
    }));
    this.#prepared = new WeakMap();
  }

  /** A segment of each layer. They lie in one array, as far as one may be that long. */
  async #allocate(capacity: number): Promise<CacheSegment[]> {
    const { rows, meta } = this.#floatsOf(capacity);
    const size = 2 * (rows + meta);
    const together = Math.max(1, Math.floor(LONGEST / size));
    const segments: CacheSegment[] = [];
    const dtype = CACHE_DTYPES[this.#cacheType]!;
    while (segments.length < this.#layerCount) {
      const count = Math.min(together, this.#layerCount - segments.length);
      const array = allocating('the cache of a text', () => largeFloats(count * size));
      for (let i = 0; i < count; i++) {
        const cut = (from: number, length: number) => array.subarray(i * size + from, i * size + from + length);
        segments.push({
          capacity,
          keys: elementsOf(dtype, cut(0, rows)),
          values: elementsOf(dtype, cut(rows, rows)),
          keyMeta: cut(2 * rows, meta),
          valueMeta: cut(2 * rows + meta, meta),
        });
      }
      await yieldIfDue();
    }
    return segments;
  }

  /** Each head's positions begin anew at a multiple of the capacity. A head at a time, so that the event loop turns in between. */
  async #copy(from: CacheSegment, to: CacheSegment, { at, put, count }: Range): Promise<void> {
    const { kvHeads } = this.#config;
    for (const name of ['keys', 'values', 'keyMeta', 'valueMeta'] as const) {
      const width = from[name].length / from.capacity / kvHeads;
      for (let head = 0; head < kvHeads; head++) {
        const begin = (head * from.capacity + at) * width;
        to[name].set(from[name].subarray(begin, begin + count * width), (head * to.capacity + put) * width);
        await yieldIfDue();
      }
    }
  }
}
