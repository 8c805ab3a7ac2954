import type { AddArgs, AttentionArgs, DenseLinearArgs, RmsNormArgs, RopeArgs, SwigluArgs } from '../../../binding.js';
import { KEY_STRIP } from '../../matrix/constants.js';
import type { Units } from './slices.js';

// The operations of language models in plain JavaScript: sums in float64, results rounded to float32. Native kernels add in
// another order and round as they go, so the two agree to a few units of float32, not to the bit.

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

function* rope({ rows, heads, headDim, cos, sin, x }: RopeArgs): Units {
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

function* attention(args: AttentionArgs): Units {
  const { rows, heads, kvHeads, headDim, window, scale, capacity, q, keys, values, out } = args;
  const positions = checkedPositions(args);
  append(args, positions);
  const meter = new Meter();
  const last = positions.reduce((most, position) => Math.max(most, position), 0);
  const weights = new Float64Array(Math.ceil((last + 1) / KEY_STRIP) * KEY_STRIP);
  const sums = new Float64Array(headDim);
  for (let r = 0; r < rows; r++) {
    const end = positions[r]! + 1;
    const first = window > 0 ? Math.max(0, end - window) : 0;
    for (let h = 0; h < heads; h++) {
      const at = (r * heads + h) * headDim;
      const cache = Math.floor((h * kvHeads) / heads) * capacity * headDim;
      // Strips are whole: scores of positions that the row does not see are computed, and not used.
      for (let j = first - (first % KEY_STRIP); j < end; j += KEY_STRIP) {
        scoresOfStrip(q, at, keys, cache + j * headDim, headDim, weights, j);
      }
      let highest = -Infinity;
      for (let j = first; j < end; j++) highest = weights[j]! > highest ? weights[j]! : highest;
      let total = 0;
      sums.fill(0);
      for (let j = first; j < end; j++) {
        const weight = Math.exp(scale * (weights[j]! - highest));
        const from = cache + j * headDim;
        total += weight;
        for (let d = 0; d < headDim; d++) sums[d] = sums[d]! + weight * values[from + d]!;
      }
      for (let d = 0; d < headDim; d++) out[at + d] = sums[d]! / total;
      if (meter.due(2 * (end - first) * (headDim + 8))) yield;
    }
  }
}

/** The positions as they are now: they may change while this runs. */
function checkedPositions({ positions, capacity }: AttentionArgs): Int32Array {
  const now = positions.slice();
  const wrong = now.find((position) => position < 0 || position >= capacity);
  if (wrong === undefined) return now;
  throw new RangeError(`Expected positions to be in [0, ${capacity - 1}], got ${wrong}.`);
}

/** Writes the rows' own keys and values to their places. */
function append({ kvHeads, headDim, capacity, k, v, keys, values }: AttentionArgs, positions: Int32Array): void {
  positions.forEach((position, r) => {
    const lane = position % KEY_STRIP;
    for (let g = 0; g < kvHeads; g++) {
      const from = (r * kvHeads + g) * headDim;
      const cache = g * capacity * headDim;
      const strip = cache + (position - lane) * headDim;
      for (let d = 0; d < headDim; d++) keys[strip + d * KEY_STRIP + lane] = k[from + d]!;
      values.set(v.subarray(from, from + headDim), cache + position * headDim);
    }
  });
}

function scoresOfStrip(
  q: Float32Array,
  atQ: number,
  keys: Float32Array,
  atKeys: number,
  headDim: number,
  scores: Float64Array,
  atScores: number,
): void {
  for (let lane = 0; lane < KEY_STRIP; lane += 4) {
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    for (let d = 0, i = atKeys + lane; d < headDim; d++, i += KEY_STRIP) {
      const x = q[atQ + d]!;
      s0 += x * keys[i]!;
      s1 += x * keys[i + 1]!;
      s2 += x * keys[i + 2]!;
      s3 += x * keys[i + 3]!;
    }
    scores[atScores + lane] = s0;
    scores[atScores + lane + 1] = s1;
    scores[atScores + lane + 2] = s2;
    scores[atScores + lane + 3] = s3;
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

function* add({ x, to }: AddArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < to.length; i++) {
    to[i] = to[i]! + x[i]!;
    if (i % 64 === 63 && meter.due(64)) yield;
  }
}

/** What `provide` is given by modules that run layers of models. */
export const LAYERS = { denseLinear, rmsNorm, rope, attention, swiglu, add };
