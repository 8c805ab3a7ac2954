import { largeFloats } from '../../compute/memory.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import { KEY_STRIP } from '../../matrix/constants.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import { refuseSurplus } from '../../messages/surplus.js';
import type { LanguageModelConfig } from '../config/model-config.js';

/** Keys and values of one layer, as `AttentionArgs` of binding.d.ts says. */
export interface LayerCache {
  readonly capacity: number;
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

/** Positions that a cache has room for at first. */
const FIRST_CAPACITY = 256;

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
  readonly #config: LanguageModelConfig;
  readonly #layerCount: number;
  /** Floats of a position in one layer's keys, or values. */
  readonly #width: number;
  #layers: readonly LayerCache[] = [];
  #capacity = 0;
  #length = 0;
  #busy = false;
  #logits: OwnedFloat32Array | undefined;
  /** By owner, who holds weights: so a cache keeps none alive. */
  #prepared = new WeakMap<object, unknown>();

  /**
   * @internal Use `model.createCache()`.
   * @param layers How many layers' keys and values there are.
   */
  constructor(config: LanguageModelConfig, maxPositions: number, layers = config.layers) {
    this.#config = config;
    this.maxPositions = maxPositions;
    this.#layerCount = layers;
    this.#width = config.kvHeads * config.headDim;
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
    return this.#bytesOf(this.#capacityFor(this.#length));
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
    this.#busy = true;
    try {
      await this.#reserve(end);
      const result = await body(this.#length);
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
      const layers = other.#layers; // it may grow meanwhile, into others
      await this.#reserve(length);
      for (const [i, layer] of layers.entries()) await this.#copyLayer(layer, this.#layers[i]!, length);
      this.#length = length;
    } finally {
      this.#busy = false;
    }
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

  #capacityFor(positions: number): number {
    return Math.ceil(Math.min(this.maxPositions, Math.max(FIRST_CAPACITY, positions)) / KEY_STRIP) * KEY_STRIP;
  }

  #bytesOf(capacity: number): number {
    return this.#layerCount * 2 * capacity * this.#width * Float32Array.BYTES_PER_ELEMENT;
  }

  /** Makes room. Gigabytes are copied a head at a time, so that the event loop turns in between. */
  async #reserve(positions: number): Promise<void> {
    if (positions <= this.#capacity) return;
    const capacity = this.#capacityFor(Math.max(positions, 2 * this.#capacity));
    const layers = this.#allocate(capacity);
    for (const [i, layer] of this.#layers.entries()) await this.#copyLayer(layer, layers[i]!, this.#length);
    this.#layers = layers;
    this.#capacity = capacity;
    this.#prepared = new WeakMap();
  }

  /** Layers lie in one array, as far as one may be that long. */
  #allocate(capacity: number): LayerCache[] {
    const size = capacity * this.#width;
    const together = Math.max(1, Math.floor(LONGEST / (2 * size)));
    const layers: LayerCache[] = [];
    while (layers.length < this.#layerCount) {
      const count = Math.min(together, this.#layerCount - layers.length);
      const array = allocating('the cache of a text', () => largeFloats(2 * count * size));
      const cut = (part: number) => array.subarray(part * size, (part + 1) * size);
      for (let i = 0; i < count; i++) layers.push({ capacity, keys: cut(2 * i), values: cut(2 * i + 1) });
    }
    return layers;
  }

  /** Each head's positions begin anew at a multiple of the capacity. */
  async #copyLayer(from: LayerCache, to: LayerCache, length: number): Promise<void> {
    const { kvHeads, headDim } = this.#config;
    const floats = Math.ceil(length / KEY_STRIP) * KEY_STRIP * headDim;
    for (const name of ['keys', 'values'] as const) {
      for (let head = 0; head < kvHeads; head++) {
        const begin = head * from.capacity * headDim;
        to[name].set(from[name].subarray(begin, begin + floats), head * to.capacity * headDim);
        await yieldIfDue();
      }
    }
  }
}
