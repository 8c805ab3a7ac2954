import { largeFloats } from '../../compute/memory.js';
import { KvCache } from '../blocks/cache.js';
import { Frame } from '../blocks/frame.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import { MAX_CONTEXT } from '../load-options.js';

/**
 * Memory for weights that goes from one part of a model to the next: what is let go would otherwise stay until the garbage
 * collector runs, and gigabytes beside it. The shelf keeps nothing from being collected.
 */
export class Shelf {
  #free: WeakRef<Float32Array>[] = [];

  take(count: number): Float32Array {
    for (const [at, free] of this.#free.entries()) {
      const array = free.deref();
      if (array?.length !== count) continue;
      this.#free.splice(at, 1);
      return array;
    }
    return largeFloats(count);
  }

  /** Takes what is on the list off it. */
  giveBack(arrays: Float32Array[]): void {
    for (const array of arrays.splice(0)) this.#free.push(new WeakRef(array));
  }

  /** Forgets what nobody took. */
  clear(): void {
    this.#free = [];
  }
}

/** What blocks compute in, from one block to the next; calls at once have each their own. */
export class Desk {
  readonly #config: LanguageModelConfig;
  #cache: KvCache | undefined;
  #frame: { readonly rows: number; readonly frame: Frame } | undefined;

  constructor(config: LanguageModelConfig) {
    this.#config = config;
  }

  /** Runs `work` with keys and values of one layer. */
  async withCache<T>(work: (cache: KvCache) => Promise<T>): Promise<T> {
    const cache = this.#cache ?? new KvCache(this.#config, MAX_CONTEXT, 'float32', 1);
    this.#cache = undefined;
    try {
      return await work(cache);
    } finally {
      this.#cache = cache;
    }
  }

  /** Runs `work` with a frame of as many rows. */
  async withFrame<T>(rows: number, work: (frame: Frame) => Promise<T>): Promise<T> {
    const frame = this.#frame?.rows === rows ? this.#frame.frame : new Frame(this.#config, rows, true);
    this.#frame = undefined;
    try {
      return await work(frame);
    } finally {
      this.#frame = { rows, frame };
    }
  }
}
