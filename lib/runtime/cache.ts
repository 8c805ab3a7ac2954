import { HqqError } from '../errors.js';
import { allocating } from '../run.js';
import type { LanguageModelConfig } from './config.js';
import { Workspace } from './workspace.js';

/** Keys and values of one layer: `[capacity, kvHeads, headDim]` each. */
interface LayerCache {
  keys: Float32Array;
  values: Float32Array;
}

/** Positions that a cache has room for at first. */
const FIRST_CAPACITY = 256;

/** What a model remembers of one text: keys and values of every position so far. Each text has its own. */
export class KvCache {
  /** Most positions that it may hold. */
  readonly maxPositions: number;
  readonly #config: LanguageModelConfig;
  readonly #layers: readonly LayerCache[];
  readonly #width: number;
  #capacity = 0;
  #length = 0;
  #busy = false;
  #workspace: Workspace | undefined;
  #logits: Float32Array | undefined;

  /** @internal Use `model.createCache()`. */
  constructor(config: LanguageModelConfig, maxPositions: number) {
    this.#config = config;
    this.maxPositions = maxPositions;
    this.#width = config.kvHeads * config.headDim;
    this.#layers = config.windows.map(() => ({ keys: new Float32Array(0), values: new Float32Array(0) }));
  }

  /** Positions that it holds. */
  get length(): number {
    return this.#length;
  }

  /** Bytes that keys and values take. */
  get bytes(): number {
    return this.#layers.length * 2 * this.#capacity * this.#width * Float32Array.BYTES_PER_ELEMENT;
  }

  /** Forgets all positions from `length` on. */
  truncate(length: number): void {
    this.#checkIdle();
    if (Number.isSafeInteger(length) && length >= 0 && length <= this.#length) this.#length = length;
    else throw new HqqError('ERR_INVALID_ARGUMENT', `Expected length to be an integer in [0, ${this.#length}], got ${length}.`);
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
      throw new HqqError('ERR_INVALID_ARGUMENT', `${message} maxContext sets the limit.`);
    }
    this.#reserve(end);
    this.#busy = true;
    try {
      const result = await body(this.#length);
      this.#length = end;
      return result;
    } finally {
      this.#busy = false;
    }
  }

  /** The rows `[from, to)` of a layer. @internal */
  rows(layer: number, from: number, to: number): LayerCache {
    const { keys, values } = this.#layers[layer]!;
    const cut = (array: Float32Array) => array.subarray(from * this.#width, to * this.#width);
    return { keys: cut(keys), values: cut(values) };
  }

  /** Buffers of a step of `rows` positions; those of single tokens are kept. @internal */
  workspace(rows: number): Workspace {
    if (rows > 1) return new Workspace(this.#config, rows);
    this.#workspace ??= new Workspace(this.#config, 1);
    return this.#workspace;
  }

  /** Where the logits of a text's last position go. @internal */
  get logits(): Float32Array {
    this.#logits ??= new Float32Array(this.#config.vocabSize);
    return this.#logits;
  }

  /** Two calls at once would write the same rows. */
  #checkIdle(): void {
    if (this.#busy)
      throw new HqqError('ERR_INVALID_ARGUMENT', 'Expected the cache to be idle, got a call while another one fills it.');
  }

  #reserve(positions: number): void {
    if (positions <= this.#capacity) return;
    const capacity = Math.min(this.maxPositions, Math.max(FIRST_CAPACITY, positions, 2 * this.#capacity));
    const grown = (array: Float32Array) => {
      const wider = allocating('the cache of a text', () => new Float32Array(capacity * this.#width));
      wider.set(array.subarray(0, this.#length * this.#width));
      return wider;
    };
    const layers = this.#layers.map(({ keys, values }) => ({ keys: grown(keys), values: grown(values) }));
    layers.forEach((layer, i) => Object.assign(this.#layers[i]!, layer));
    this.#capacity = capacity;
  }
}
