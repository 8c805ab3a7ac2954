import type { AddArgs, DenseLinearArgs } from '../../../binding.js';
import { Meter } from './meter.js';
import type { Units } from './slices.js';

// Products with matrices of floats, and sums, in plain JavaScript: what layers of models and adapters share.

function* denseLinear({ batch, inFeatures, outFeatures, x, weights, bias, out }: DenseLinearArgs): Units {
  const meter = new Meter();
  const pair = new Float64Array(2);
  // Rows of x in pairs: each weight that is read serves both.
  for (let b = 0; b < batch; b += 2) {
    const both = b + 1 < batch;
    for (let o = 0; o < outFeatures; o++) {
      const shift = bias.length > 0 ? bias[o]! : 0;
      const at = b * outFeatures + o;
      if (both) {
        dotPair(x, b * inFeatures, weights, o * inFeatures, inFeatures, pair);
        out[at] = shift + pair[0]!;
        out[at + outFeatures] = shift + pair[1]!;
      } else {
        out[at] = shift + dot(x, b * inFeatures, weights, o * inFeatures, inFeatures);
      }
      if (meter.due(2 * inFeatures)) yield;
    }
  }
}

/** Four sums side by side: one after the other, each addition would wait for the last. */
export function dot(a: Float32Array, atA: number, b: Float32Array, atB: number, count: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    s0 += a[atA + i]! * b[atB + i]!;
    s1 += a[atA + i + 1]! * b[atB + i + 1]!;
    s2 += a[atA + i + 2]! * b[atB + i + 2]!;
    s3 += a[atA + i + 3]! * b[atB + i + 3]!;
  }
  for (; i < count; i++) s0 += a[atA + i]! * b[atB + i]!;
  return s0 + s1 + (s2 + s3);
}

/** `dot` of two rows of x, one after the other in memory, with one of weights: in the same order, for the same bits. */
function dotPair(x: Float32Array, atX: number, w: Float32Array, atW: number, count: number, out: Float64Array): void {
  const next = atX + count;
  let a0 = 0;
  let a1 = 0;
  let a2 = 0;
  let a3 = 0;
  let b0 = 0;
  let b1 = 0;
  let b2 = 0;
  let b3 = 0;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const w0 = w[atW + i]!;
    const w1 = w[atW + i + 1]!;
    const w2 = w[atW + i + 2]!;
    const w3 = w[atW + i + 3]!;
    a0 += x[atX + i]! * w0;
    a1 += x[atX + i + 1]! * w1;
    a2 += x[atX + i + 2]! * w2;
    a3 += x[atX + i + 3]! * w3;
    b0 += x[next + i]! * w0;
    b1 += x[next + i + 1]! * w1;
    b2 += x[next + i + 2]! * w2;
    b3 += x[next + i + 3]! * w3;
  }
  for (; i < count; i++) {
    a0 += x[atX + i]! * w[atW + i]!;
    b0 += x[next + i]! * w[atW + i]!;
  }
  out[0] = a0 + a1 + (a2 + a3);
  out[1] = b0 + b1 + (b2 + b3);
}

function* add({ x, to }: AddArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < to.length; i++) {
    to[i] = to[i]! + x[i]!;
    if (i % 64 === 63 && meter.due(64)) yield;
  }
}

/** What `provide` is given by modules that multiply with floats. */
export const DENSE = { denseLinear, add };
