import type { Steps } from '../files/event-loop.js';

/** Shares that are computed in one step. */
const AT_ONCE = 1 << 14;

/** The share that a model gives each token of being the next one: the mean of the softmax of all rows of logits. */
export class Shares {
  readonly #sums: Float64Array;
  readonly #own: Float64Array;
  #rows = 0;

  /** `width`: tokens of the vocabulary. */
  constructor(width: number) {
    this.#sums = new Float64Array(width);
    this.#own = new Float64Array(width);
  }

  /** Logits `[rows, width]`. */
  *add(logits: Float32Array): Steps<void> {
    const [sums, own] = [this.#sums, this.#own];
    const width = sums.length;
    for (let at = 0; at < logits.length; at += width) {
      let [highest, mass] = [-Infinity, 0];
      for (let i = 0; i < width; i++) highest = Math.max(highest, logits[at + i]!);
      for (let i = 0; i < width; i++) {
        if (i % AT_ONCE === 0) yield;
        mass += own[i] = Math.exp(logits[at + i]! - highest);
      }
      for (let i = 0; i < width; i++) sums[i] = sums[i]! + own[i]! / mass;
      this.#rows++;
      yield;
    }
  }

  /** `[width]` */
  take(): Float64Array {
    return this.#sums.map((sum) => sum / this.#rows);
  }
}
