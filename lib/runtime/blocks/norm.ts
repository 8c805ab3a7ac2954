import type { Plan } from './plan.js';

/** RMSNorm: each row over its root mean square, times a weight. */
export class RmsNorm {
  readonly #weight: Float32Array;
  readonly #epsilon: number;

  constructor(weight: Float32Array, epsilon: number) {
    this.#weight = weight;
    this.#epsilon = epsilon;
  }

  /** Bytes that the weight takes in memory. */
  get bytes(): number {
    return this.#weight.byteLength;
  }

  /** Adds the norm of `x` (`[rows, cols]`) to a plan, which writes it to `out`, or over `x`. */
  addTo(plan: Plan, x: Float32Array, rows: number, out: Float32Array): void {
    const [weight, epsilon, cols] = [this.#weight, this.#epsilon, this.#weight.length];
    plan.add(2 * x.length, (threads) => [
      { operation: 'rmsNorm', args: { rows, cols, epsilon, x, weight, out, threads } },
    ]);
  }
}
