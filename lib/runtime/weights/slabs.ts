import { largeFloats } from '../../compute/memory.js';
import { type PanelsFor, shortMeta } from './short-meta.js';

/** Where weights lie in memory. */
export interface WeightMemory {
  /** Gives memory for a matrix of floats. */
  readonly floats: (count: number) => Float32Array;
  /** Gives it for codes, their scales and zeros. */
  readonly panels: PanelsFor;
}

/** Each matrix has its own. */
export const OWN: WeightMemory = {
  floats: largeFloats,
  panels: shortMeta({ bytes: (count) => new Uint8Array(count), floats: (count) => new Float32Array(count) }),
};

/** Bytes of a large page. What takes as many has memory of its own, in large pages. */
const PAGE = 1 << 21;

/** Bytes of the first slab, and of the longest: each is twice as long as the one before it. */
const FIRST = 2 * PAGE;
const LONGEST = 16 * PAGE;

/** Bytes of a cache line, where arrays begin: elsewhere, loads of whole lines would each touch two. */
const LINE = 64;

/**
 * Memory for the weights of one model. Matrices of small models are smaller than a large page: cut from slabs that lie in some, they are read
 * up to a third faster. A slab is kept by each array that is cut from it.
 */
export class Slabs implements WeightMemory {
  readonly panels: PanelsFor = shortMeta({
    bytes: (count) => this.bytes(count),
    floats: (count) => this.floats(count),
  });

  #slab = new ArrayBuffer(0);
  #used = 0;
  #end = 0;
  #next = FIRST;

  readonly floats = (count: number): Float32Array<ArrayBuffer> => {
    const bytes = count * Float32Array.BYTES_PER_ELEMENT;
    if (bytes >= PAGE) return largeFloats(count);
    const at = this.#cut(bytes); // of the slab that there is then
    return new Float32Array(this.#slab, at, count);
  };

  readonly bytes = (count: number): Uint8Array<ArrayBuffer> => {
    if (count >= PAGE) return new Uint8Array(count);
    const at = this.#cut(count);
    return new Uint8Array(this.#slab, at, count);
  };

  /** Where so many bytes of the slab begin. */
  #cut(bytes: number): number {
    const length = Math.ceil(bytes / LINE) * LINE;
    if (this.#used + length > this.#end) {
      // Allocators begin where they like: what lies before the first large page, and after the last, stays as it is, and takes nothing.
      const toPage = new Int32Array(1);
      this.#slab = largeFloats((this.#next + PAGE) / Float32Array.BYTES_PER_ELEMENT, toPage).buffer;
      this.#used = toPage[0]!;
      this.#end = this.#used + this.#next;
      this.#next = Math.min(2 * this.#next, LONGEST);
    }
    this.#used += length;
    return this.#used - length;
  }
}
