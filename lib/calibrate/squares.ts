import type { LinearInput } from '../runtime/blocks/tap.js';

/**
 * Mean squares of what goes into linear layers, by module, one number an input feature: sums in float64, row after row in the order in
 * which they come, whatever the number of threads.
 */
export class Squares {
  readonly #sums = new Map<string, { readonly sums: Float64Array; rows: number }>();

  /** A tap. */
  readonly add = ({ module, rows, x }: LinearInput): void => {
    const width = x.length / rows;
    let sum = this.#sums.get(module);
    if (sum === undefined) this.#sums.set(module, (sum = { sums: new Float64Array(width), rows: 0 }));
    const { sums } = sum;
    sum.rows += rows;
    for (let at = 0; at < x.length; at += width) {
      for (let i = 0; i < width; i++) {
        const value = x[at + i]!;
        sums[i] = sums[i]! + value * value;
      }
    }
  };

  /** What there is so far, and forgets it. */
  take(): Map<string, Float32Array> {
    const means = new Map<string, Float32Array>();
    for (const [module, { sums, rows }] of this.#sums) {
      means.set(
        module,
        Float32Array.from(sums, (sum) => sum / rows),
      );
    }
    this.#sums.clear();
    return means;
  }
}
