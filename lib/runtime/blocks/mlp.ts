import type { Activation } from '../config/description.js';
import type { Outs } from './frame.js';
import { addFused, addNamed, type NamedLinear } from './linear.js';
import type { Lora } from './lora.js';
import type { Plan } from './plan.js';

/** Linear layers of a gated MLP: `down(activation(gate(x)) * up(x))`. */
export interface MlpLinears {
  /** The gate and what it is multiplied with: two layers, or one that gives both. */
  readonly gateUp: readonly NamedLinear[];
  /** Back to the hidden size. */
  readonly down: NamedLinear;
}

/** Operations that multiply with what activations make of a gate. */
const GATED = { silu: 'swiglu', gelu_tanh: 'geglu' } as const satisfies Readonly<Record<Activation, string>>;

/** Adds a gated MLP: it reads `x`, and writes all others. */
export function addMlp(
  plan: Plan,
  { gateUp, down }: MlpLinears,
  activation: Activation,
  rows: number,
  { x, mlp, activated, out }: { x: Float32Array; mlp: Outs; activated: Float32Array; out: Float32Array },
  lora: Lora | undefined,
): void {
  addFused(plan, gateUp, x, rows, mlp, lora);
  const [gate, up] = mlp.parts as [Float32Array, Float32Array];
  addGate(plan, activation, gate, up, activated);
  addNamed(plan, down, activated, rows, out, lora);
}

/** `out = activation(gate) * up` */
export function addGate(
  plan: Plan,
  activation: Activation,
  gate: Float32Array,
  up: Float32Array,
  out: Float32Array,
): void {
  // An exponential costs as much as some sixteen multiply-adds.
  plan.add(16 * gate.length, (threads) => [{ operation: GATED[activation], args: { gate, up, out, threads } }]);
}
