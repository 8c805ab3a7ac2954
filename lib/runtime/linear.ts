import type { Plan } from './plan.js';

/** A linear layer, `out = x . W^T + bias`, whatever its weights are. */
export interface Linear {
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Bytes that the weights take in memory. */
  readonly bytes: number;
  /** `x` is `[batch, inFeatures]`, `out` is `[batch, outFeatures]`. */
  addTo(plan: Plan, x: Float32Array, batch: number, out: Float32Array): void;
}

const NO_BIAS = new Float32Array(0);

/** Weights in float32. */
export class DenseLinear implements Linear {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly #weights: Float32Array;
  readonly #bias: Float32Array;

  constructor(weights: Float32Array, shape: readonly [outFeatures: number, inFeatures: number], bias?: Float32Array) {
    this.#weights = weights;
    this.#bias = bias ?? NO_BIAS;
    [this.outFeatures, this.inFeatures] = shape;
  }

  get bytes(): number {
    return this.#weights.byteLength + this.#bias.byteLength;
  }

  addTo(plan: Plan, x: Float32Array, batch: number, out: Float32Array): void {
    const { inFeatures, outFeatures } = this;
    plan.add(batch * inFeatures * outFeatures, (threads) => ({
      operation: 'denseLinear',
      args: { batch, inFeatures, outFeatures, x, weights: this.#weights, bias: this.#bias, out, threads },
    }));
  }
}
