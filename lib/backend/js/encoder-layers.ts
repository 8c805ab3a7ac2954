import type { ActivationArgs, LayerNormArgs } from '../../../binding.js';
import { Meter } from './meter.js';
import type { Units } from './slices.js';

// Layers of encoders, as layers.ts has those of language models.

function* layerNorm({ rows, cols, epsilon, x, weight, bias, out }: LayerNormArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    const at = r * cols;
    const { mean, factor } = moments(x, at, cols, epsilon);
    for (let c = 0; c < cols; c++) out[at + c] = (x[at + c]! - mean) * factor * weight[c]! + bias[c]!;
    if (meter.due(3 * cols)) yield;
  }
}

/** Of a row: its mean, and one over its standard deviation. */
export function moments(x: Float32Array, at: number, cols: number, epsilon: number): { mean: number; factor: number } {
  let sum = 0;
  for (let c = 0; c < cols; c++) sum += x[at + c]!;
  const mean = sum / cols;
  let squares = 0;
  for (let c = 0; c < cols; c++) squares += (x[at + c]! - mean) ** 2;
  return { mean, factor: 1 / Math.sqrt(squares / cols + epsilon) };
}

/** Calls `of` for every place of an array, from time to time with a pause. */
export function* each(length: number, of: (i: number) => void): Units {
  const meter = new Meter();
  for (let i = 0; i < length; i++) {
    of(i);
    if (i % 64 === 63 && meter.due(64 * 24)) yield;
  }
}

const inPlace =
  (of: (x: number) => number) =>
  ({ x }: ActivationArgs): Units =>
    each(x.length, (i) => {
      x[i] = of(x[i]!);
    });

/** Coefficients of Numerical Recipes, "erfcc": the relative error is less than 1.2e-7, a step of float32, everywhere. */
const COMPLEMENT = [
  ...[-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806],
  ...[0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277],
] as const;

/** The share of the normal distribution that is below x. */
export function normalShare(x: number): number {
  const z = Math.abs(x) * Math.SQRT1_2;
  const t = 1 / (1 + z / 2);
  let sum = 0;
  for (let i = COMPLEMENT.length - 1; i >= 0; i--) sum = sum * t + COMPLEMENT[i]!;
  const outside = (t * Math.exp(sum - z * z)) / 2;
  return x >= 0 ? 1 - outside : outside;
}

/** What `provide` is given by modules that run encoders. */
export const ENCODER_LAYERS = {
  layerNorm,
  gelu: inPlace((x) => x * normalShare(x)),
  geluTanh: inPlace((x) => x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * x * (1 + 0.044715 * x * x)))),
  relu: inPlace((x) => Math.max(x, 0)),
};
