import type { AddArgs, AttentionArgs, DenseLinearArgs, RmsNormArgs, RopeArgs, SwigluArgs } from '../../binding.js';

// The operations of language models in plain JavaScript: sums in float64, results rounded to float32. Native kernels add in
// another order and round as they go, so the two agree to a few units of float32, not to the bit.

/** Work cut into units of well under a millisecond: after each, the event loop may have its turn. */
type Units = Generator<void, void, void>;

/** Multiply-adds, or elements of slower kinds, between turns. */
const UNIT = 1 << 17;

/** Yields once for every `UNIT` of work. */
class Meter {
  #work = 0;

  /** Whether so much was done that a turn is due. */
  due(work: number): boolean {
    this.#work += work;
    if (this.#work < UNIT) return false;
    this.#work = 0;
    return true;
  }
}

export function* denseLinear({ batch, inFeatures, outFeatures, x, weights, bias, out }: DenseLinearArgs): Units {
  const meter = new Meter();
  // Rows of x in fours: each weight that is read serves four.
  for (let b = 0; b < batch; b += 4) {
    const count = Math.min(4, batch - b);
    for (let o = 0; o < outFeatures; o++) {
      const shift = bias.length > 0 ? bias[o]! : 0;
      if (count === 4) dotFour(x, b * inFeatures, weights, o * inFeatures, inFeatures, shift, out, b * outFeatures + o, outFeatures);
      else for (let r = b; r < b + count; r++) out[r * outFeatures + o] = shift + dot(x, r * inFeatures, weights, o * inFeatures, inFeatures);
      if (meter.due(count * inFeatures)) yield;
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

/** `dot` of four rows of x, which begin `count` apart, with one of weights: in the same order, for the same bits. */
function dotFour(
  x: Float32Array,
  atX: number,
  w: Float32Array,
  atW: number,
  count: number,
  shift: number,
  out: Float32Array,
  atOut: number,
  stride: number,
): void {
  for (let r = 0; r < 4; r += 2) {
    const one = atX + r * count;
    const two = one + count;
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
      a0 += x[one + i]! * w0;
      a1 += x[one + i + 1]! * w1;
      a2 += x[one + i + 2]! * w2;
      a3 += x[one + i + 3]! * w3;
      b0 += x[two + i]! * w0;
      b1 += x[two + i + 1]! * w1;
      b2 += x[two + i + 2]! * w2;
      b3 += x[two + i + 3]! * w3;
    }
    for (; i < count; i++) {
      a0 += x[one + i]! * w[atW + i]!;
      b0 += x[two + i]! * w[atW + i]!;
    }
    out[atOut + r * stride] = shift + (a0 + a1 + (a2 + a3));
    out[atOut + (r + 1) * stride] = shift + (b0 + b1 + (b2 + b3));
  }
}

export function* rmsNorm({ rows, cols, epsilon, x, weight, out }: RmsNormArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    const at = r * cols;
    const factor = 1 / Math.sqrt(dot(x, at, x, at, cols) / cols + epsilon);
    for (let c = 0; c < cols; c++) out[at + c] = x[at + c]! * factor * weight[c]!;
    if (meter.due(2 * cols)) yield;
  }
}

export function* rope({ rows, heads, headDim, cos, sin, x }: RopeArgs): Units {
  const meter = new Meter();
  const half = headDim / 2;
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

export function* attention(args: AttentionArgs): Units {
  const { rows, heads, kvHeads, headDim, start, window, scale, q, keys, values, out } = args;
  const meter = new Meter();
  const weights = new Float64Array(start + rows);
  const sums = new Float64Array(headDim);
  const stride = kvHeads * headDim;
  for (let r = 0; r < rows; r++) {
    const end = start + r + 1;
    const first = window > 0 ? Math.max(0, end - window) : 0;
    for (let h = 0; h < heads; h++) {
      const at = (r * heads + h) * headDim;
      const column = Math.floor((h * kvHeads) / heads) * headDim;
      let highest = -Infinity;
      for (let j = first; j < end; j++) {
        const score = scale * dot(q, at, keys, j * stride + column, headDim);
        weights[j] = score;
        if (score > highest) highest = score;
      }
      let total = 0;
      sums.fill(0);
      for (let j = first; j < end; j++) {
        const weight = Math.exp(weights[j]! - highest);
        const from = j * stride + column;
        total += weight;
        for (let d = 0; d < headDim; d++) sums[d] = sums[d]! + weight * values[from + d]!;
      }
      for (let d = 0; d < headDim; d++) out[at + d] = sums[d]! / total;
      if (meter.due(2 * (end - first) * (headDim + 8))) yield;
    }
  }
}

export function* swiglu({ gate, up, out }: SwigluArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < out.length; i++) {
    const g = gate[i]!;
    out[i] = (g / (1 + Math.exp(-g))) * up[i]!;
    if (i % 64 === 63 && meter.due(64 * 16)) yield;
  }
}

export function* add({ x, to }: AddArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < to.length; i++) {
    to[i] = to[i]! + x[i]!;
    if (i % 64 === 63 && meter.due(64)) yield;
  }
}
