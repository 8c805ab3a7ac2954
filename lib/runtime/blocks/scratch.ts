import { largeFloats } from '../../compute/memory.js';
import { allocating } from '../../messages/allocating.js';

/** Where the activations of a pass lie. */
export interface Floats {
  /** An array for the pass, whatever is in it. */
  take(count: number): Float32Array;
}

/** A new array for each. */
export const NEW_FLOATS: Floats = {
  take: (count) => allocating('the activations', () => new Float32Array(count)),
};

/** Arrays begin at multiples of so many floats, a cache line. */
const ALIGNED = 16;

/**
 * Memory that one pass after the other has: new arrays would be pages that the system clears as they are written to, and bytes that V8 counts
 * until it stops everybody to collect them.
 */
export class Scratch implements Floats {
  #memory = new Float32Array(0);
  #taken = 0;

  /** Takes everything back, and makes room for `arrays` of `count` floats in all. */
  begin(count: number, arrays: number): void {
    const most = count + arrays * ALIGNED;
    if (most > this.#memory.length) {
      this.#memory = new Float32Array(0); // not both at once
      this.#memory = allocating('the activations', () => largeFloats(most));
    }
    this.#taken = 0;
  }

  take(count: number): Float32Array {
    const [from, end] = [this.#taken, this.#taken + count];
    if (end > this.#memory.length) return NEW_FLOATS.take(count);
    this.#taken = Math.ceil(end / ALIGNED) * ALIGNED;
    return this.#memory.subarray(from, end);
  }
}
