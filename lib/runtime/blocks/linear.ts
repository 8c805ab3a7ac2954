import type { ColumnsArgs } from '../../../binding.js';
import { QuantizedLinear } from '../../compute/linear.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import type { RunOptions } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import type { Outs } from './frame.js';
import type { Lora } from './lora.js';
import type { Plan } from './plan.js';

/** A linear layer, `out = x . W^T + bias`, whatever its weights are. */
export interface Linear {
  /** Numbers per row of x. */
  readonly inFeatures: number;
  /** Numbers per row of the result. */
  readonly outFeatures: number;
  /** Bytes that the weights take in memory. */
  readonly bytes: number;
  /** What is added to every row of the result. */
  readonly bias: Float32Array | undefined;
  /** A copy of the weights, `[outFeatures, inFeatures]`. */
  weights(run: RunOptions): Promise<OwnedFloat32Array>;
  /** `x` is `[batch, inFeatures]`, `out` is `[batch, outFeatures]`. */
  addTo(plan: Plan, x: Float32Array, batch: number, out: Float32Array): void;
}

const NO_BIAS = new Float32Array(0);

/** Weights in float32. */
export class DenseLinear implements Linear {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly #weights: Float32Array;
  readonly bias: Float32Array | undefined;

  constructor(weights: Float32Array, shape: readonly [outFeatures: number, inFeatures: number], bias?: Float32Array) {
    this.#weights = weights;
    this.bias = bias;
    [this.outFeatures, this.inFeatures] = shape;
  }

  get bytes(): number {
    return this.#weights.byteLength + (this.bias?.byteLength ?? 0);
  }

  async weights(): Promise<OwnedFloat32Array> {
    return allocating('a copy of the weights', () => new Float32Array(this.#weights));
  }

  addTo(plan: Plan, x: Float32Array, batch: number, out: Float32Array): void {
    const { inFeatures, outFeatures, bias = NO_BIAS } = this;
    plan.add(batch * inFeatures * outFeatures, (threads) => [
      {
        operation: 'denseLinear',
        args: { batch, inFeatures, outFeatures, x, weights: this.#weights, bias, out, threads },
      },
    ]);
  }
}

/** Weights as codes. */
export class CodedLinear implements Linear {
  readonly layer: QuantizedLinear;

  constructor(layer: QuantizedLinear) {
    this.layer = layer;
  }

  get inFeatures(): number {
    return this.layer.inFeatures;
  }

  get outFeatures(): number {
    return this.layer.outFeatures;
  }

  get bytes(): number {
    return this.layer.memoryUsage;
  }

  get bias(): Float32Array | undefined {
    return this.layer.bias;
  }

  weights(run: RunOptions): Promise<OwnedFloat32Array> {
    return this.layer.dequantize(run);
  }

  addTo(plan: Plan, x: Float32Array, batch: number, out: Float32Array): void {
    addLinears(plan, [this], x, batch, [out]);
  }
}

/** Several layers of one input. Those on codes become one operation, which arranges x once. */
export function addLinears(
  plan: Plan,
  linears: readonly Linear[],
  x: Float32Array,
  batch: number,
  outs: readonly Float32Array[],
): void {
  const coded = linears.flatMap((linear) => (linear instanceof CodedLinear ? [linear] : []));
  if (coded.length < linears.length || coded.length === 0) {
    linears.forEach((linear, i) => linear.addTo(plan, x, batch, outs[i]!));
    return;
  }
  const work = coded.reduce((sum, { inFeatures, outFeatures }) => sum + batch * inFeatures * outFeatures, 0);
  const layers = coded.map(({ layer }) => layer);
  plan.add(work, (threads) => QuantizedLinear.steps(layers, x, outs, threads));
}

/** A linear layer of a block. */
export interface NamedLinear {
  /** As checkpoints call it: `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly linear: Linear;
}

/** Adds a layer, and what adapters add to it. */
export function addNamed(
  plan: Plan,
  { module, linear }: NamedLinear,
  x: Float32Array,
  rows: number,
  out: Float32Array,
  lora: Lora | undefined,
): void {
  linear.addTo(plan, x, rows, out);
  lora?.addTo(plan, module, x, rows, out);
}

/** Adds layers of one input, or the one layer that they are in a checkpoint, whose results are then cut apart. */
export function addFused(
  plan: Plan,
  layers: readonly NamedLinear[],
  x: Float32Array,
  rows: number,
  { whole, parts }: Outs,
  lora: Lora | undefined,
): void {
  const linears = layers.map(({ linear }) => linear);
  if (whole === undefined) {
    addLinears(plan, linears, x, rows, parts);
    layers.forEach(({ module }, i) => lora?.addTo(plan, module, x, rows, parts[i]!));
    return;
  }
  addNamed(plan, layers[0]!, x, rows, whole, lora);
  if (rows === 1) return; // they are parts of the whole
  const width = whole.length / rows;
  let from = 0;
  for (const out of parts) {
    const cols = out.length / rows;
    addColumns(plan, { x: whole, rows, width, from, cols, out });
    from += cols;
  }
}

/** Adds a copy of some columns. */
export function addColumns(plan: Plan, args: Omit<ColumnsArgs, 'threads'>): void {
  plan.add(args.out.length, (threads) => [{ operation: 'columns', args: { ...args, threads } }]);
}
