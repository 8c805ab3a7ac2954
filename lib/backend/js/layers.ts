import type {
  AddArgs,
  ColumnsArgs,
  DenseLinearArgs,
  GegluArgs,
  RmsNormArgs,
  RopeArgs,
  ScaleArgs,
  SwigluArgs,
} from '../../../binding.js';
import { attention } from './attention.js';
import { Meter } from './meter.js';
import type { Units } from './slices.js';

// The operations of language models in plain JavaScript: sums in float64, results rounded to float32. Native kernels add in
// another order and round as they go, so the two agree to a few units of float32, not to the bit.

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
function dot(a: Float32Array, atA: number, b: Float32Array, atB: number, count: number): number {
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

function* rmsNorm({ rows, cols, epsilon, x, weight, out }: RmsNormArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    const at = r * cols;
    const factor = 1 / Math.sqrt(dot(x, at, x, at, cols) / cols + epsilon);
    for (let c = 0; c < cols; c++) out[at + c] = x[at + c]! * factor * weight[c]!;
    if (meter.due(2 * cols)) yield;
  }
}

function* rope({ rows, heads, headDim, turned, cos, sin, x }: RopeArgs): Units {
  const meter = new Meter();
  const half = turned / 2;
  for (let r = 0; r < rows; r++) {
    for (let h = 0; h < heads; h++) {
      const at = (r * heads + h) * headDim;
      for (let i = 0; i < half; i++) {
        const [c, s] = [cos[r * half + i]!, sin[r * half + i]!];
        const [a, b] = [x[at + i]!, x[at + half + i]!];
        x[at + i] = a * c - b * s;
        x[at + half + i] = b * c + a * s;
      }
    }
    if (meter.due(heads * headDim)) yield;
  }
}

function* swiglu({ gate, up, out }: SwigluArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < out.length; i++) {
    const g = gate[i]!;
    out[i] = (g / (1 + Math.exp(-g))) * up[i]!;
    if (i % 64 === 63 && meter.due(64 * 16)) yield;
  }
}

function* geglu({ gate, up, out }: GegluArgs): Units {
  const meter = new Meter();
  const slope = 2 * Math.sqrt(2 / Math.PI);
  for (let i = 0; i < out.length; i++) {
    const g = gate[i]!;
    out[i] = (g / (1 + Math.exp(-slope * g * (1 + 0.044715 * g * g)))) * up[i]!;
    if (i % 64 === 63 && meter.due(64 * 16)) yield;
  }
}

function* scale({ factor, softcap, x }: ScaleArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < x.length; i++) {
    const scaled = x[i]! * factor;
    x[i] = softcap > 0 ? softcap * Math.tanh(scaled / softcap) : scaled;
    if (i % 64 === 63 && meter.due(64 * (softcap > 0 ? 16 : 1))) yield;
  }
}

function* columns({ rows, width, from, cols, x, out }: ColumnsArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    out.set(x.subarray(r * width + from, r * width + from + cols), r * cols);
    if (meter.due(cols)) yield;
  }
}

function* add({ x, to }: AddArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < to.length; i++) {
    to[i] = to[i]! + x[i]!;
    if (i % 64 === 63 && meter.due(64)) yield;
  }
}

/** What `provide` is given by modules that run layers of models. */
export const LAYERS = { denseLinear, rmsNorm, rope, attention, swiglu, geglu, scale, columns, add };
