import { largeFloats } from '../../compute/memory.js';
import { allocating } from '../../compute/run.js';
import { KEY_BLOCK } from '../../matrix/constants.js';
import { HqqError } from '../../messages/errors.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import { Workspace } from './workspace.js';

/** Keys and values of one layer, as `AttentionArgs` of binding.d.ts says. */
interface LayerCache {
  readonly capacity: number;
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

/** Positions that a cache has room for at first. */
const FIRST_CAPACITY = 256;

/** Floats of an array that several layers share. Node 20 has none of more than 4 GiB. */
const LONGEST = 1 << 28;

/** What a model remembers of one text: keys and values of every position so far. Each text has its own. */
export class KvCache {
  /** Most positions that it may hold. */
  readonly maxPositions: number;
  readonly #config: LanguageModelConfig;
  /** Floats of a position in one layer's keys, or values. */
  readonly #width: number;
  #layers: readonly LayerCache[] = [];
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
  }

  /** Positions that it holds. */
  get length(): number {
    return this.#length;
  }

  /** Bytes that keys and values take. */
  get bytes(): number {
    return this.#config.layers * 2 * this.#capacity * this.#width * Float32Array.BYTES_PER_ELEMENT;
  }

  /** Forgets all positions from `length` on. */
  truncate(length: number): void {
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

  /** Keys and values of a layer. @internal */
  layer(layer: number): LayerCache {
    return this.#layers[layer]!;
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
      throw new HqqError(
        'ERR_INVALID_ARGUMENT',
        'Expected the cache to be idle, got a call while another one fills it.',
      );
  }

  #reserve(positions: number): void {
    if (positions <= this.#capacity) return;
    const wanted = Math.min(this.maxPositions, Math.max(FIRST_CAPACITY, positions, 2 * this.#capacity));
    const capacity = Math.ceil(wanted / KEY_BLOCK) * KEY_BLOCK;
    const layers = this.#allocate(capacity);
    this.#layers.forEach(({ keys, values }, i) => {
      this.#copyHeads(keys, layers[i]!.keys, capacity);
      this.#copyHeads(values, layers[i]!.values, capacity);
    });
    this.#layers = layers;
    this.#capacity = capacity;
  }

  /** Layers lie in one array, as far as one may be that long. */
  #allocate(capacity: number): LayerCache[] {
    const size = capacity * this.#width;
    const together = Math.max(1, Math.floor(LONGEST / (2 * size)));
    const layers: LayerCache[] = [];
    while (layers.length < this.#config.layers) {
      const count = Math.min(together, this.#config.layers - layers.length);
      const array = allocating('the cache of a text', () => largeFloats(2 * count * size));
      const cut = (part: number) => array.subarray(part * size, (part + 1) * size);
      for (let i = 0; i < count; i++) layers.push({ capacity, keys: cut(2 * i), values: cut(2 * i + 1) });
    }
    return layers;
  }

  /** Each head's positions begin anew at a multiple of the capacity. */
  #copyHeads(from: Float32Array, to: Float32Array, capacity: number): void {
    const { kvHeads, headDim } = this.#config;
    const positions = Math.ceil(this.#length / KEY_BLOCK) * KEY_BLOCK;
    for (let head = 0; head < kvHeads; head++) {
      const begin = head * this.#capacity * headDim;
      to.set(from.subarray(begin, begin + positions * headDim), head * capacity * headDim);
    }
  }
}
