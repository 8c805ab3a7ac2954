import type { Steps } from '../../files/event-loop.js';

// What is computed here, row by row in float64: an encoder's linear layers and attention take most of its time.

/** What an encoder has between the two layers of its MLP. */
export type Activation = 'gelu' | 'gelu_new' | 'relu';

/** LayerNorm of every row, in place: less its mean, over its standard deviation, times a weight, plus a bias. A step is a row. */
export function* normalizeRows(
  x: Float32Array,
  { weight, bias, epsilon }: { readonly weight: Float32Array; readonly bias: Float32Array; readonly epsilon: number },
): Steps<void> {
  const width = weight.length;
  for (let at = 0; at < x.length; at += width) {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += x[at + i]!;
    const mean = sum / width;
    let squares = 0;
    for (let i = 0; i < width; i++) squares += (x[at + i]! - mean) ** 2;
    const factor = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) x[at + i] = (x[at + i]! - mean) * factor * weight[i]! + bias[i]!;
    yield;
  }
}

/** Numbers that are activated in one step. */
const AT_ONCE = 4096;

/** The activation of every number, in place. */
export function* activate(x: Float32Array, activation: Activation): Steps<void> {
  const of = FUNCTIONS[activation];
  for (let begin = 0; begin < x.length; begin += AT_ONCE) {
    const end = Math.min(begin + AT_ONCE, x.length);
    for (let i = begin; i < end; i++) x[i] = of(x[i]!);
    yield;
  }
}

const FUNCTIONS: Readonly<Record<Activation, (x: number) => number>> = {
  gelu: (x) => (x * complement(-x * Math.SQRT1_2)) / 2,
  gelu_new: (x) => (x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))) / 2,
  relu: (x) => Math.max(x, 0),
};

/** Coefficients of Numerical Recipes, "erfcc": the relative error is less than 1.2e-7, a step of float32, everywhere. */
const COMPLEMENT = [
  ...[-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806],
  ...[0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277],
] as const;

/** The complementary error function. */
function complement(x: number): number {
  const z = Math.abs(x);
  const t = 1 / (1 + z / 2);
  let sum = 0;
  for (let i = COMPLEMENT.length - 1; i >= 0; i--) sum = sum * t + COMPLEMENT[i]!;
  const value = t * Math.exp(sum - z * z);
  return x >= 0 ? value : 2 - value;
}
