import type { AttentionGradientArgs } from '../../../../binding.js';
import { Meter } from '../meter.js';
import type { Units } from '../slices.js';

/** Row by row: its probabilities, what each of them counts, and what that makes of queries, keys and values. */
export function* attentionGradient(args: AttentionGradientArgs): Units {
  const { rows, heads, kvHeads, headDim, window, causal, scale, softcap, q, k, v, gradient } = args;
  const { qGradient, kGradient, vGradient } = args;
  const meter = new Meter();
  const keys = new Float64Array(k.length);
  const values = new Float64Array(v.length);
  const query = new Float64Array(headDim);
  const weights = new Float64Array(rows);
  const slopes = new Float64Array(rows);
  const changes = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    const first = causal && window > 0 ? Math.max(0, r + 1 - window) : 0;
    const end = causal ? r + 1 : rows;
    for (let h = 0; h < heads; h++) {
      const at = (r * heads + h) * headDim;
      const head = Math.floor((h * kvHeads) / heads);
      const lineOf = (j: number) => (j * kvHeads + head) * headDim;
      let highest = -Infinity;
      for (let j = first; j < end; j++) {
        const scaled = scale * dot(q, at, k, lineOf(j), headDim);
        const bent = softcap > 0 ? Math.tanh(scaled / softcap) : 0;
        weights[j] = softcap > 0 ? softcap * bent : scaled;
        slopes[j] = scale * (1 - bent * bent);
        highest = weights[j]! > highest ? weights[j]! : highest;
      }
      let [total, mean] = [0, 0];
      for (let j = first; j < end; j++) {
        weights[j] = Math.exp(weights[j]! - highest);
        changes[j] = dot(gradient, at, v, lineOf(j), headDim);
        total += weights[j]!;
        mean += weights[j]! * changes[j]!;
      }
      mean /= total;
      query.fill(0);
      for (let j = first; j < end; j++) {
        const weight = weights[j]! / total;
        const change = weight * (changes[j]! - mean) * slopes[j]!;
        const line = lineOf(j);
        for (let d = 0; d < headDim; d++) {
          query[d] = query[d]! + change * k[line + d]!;
          keys[line + d] = keys[line + d]! + change * q[at + d]!;
          values[line + d] = values[line + d]! + weight * gradient[at + d]!;
        }
      }
      qGradient.set(query, at);
      if (meter.due(5 * (end - first) * (headDim + 8))) yield;
    }
  }
  kGradient.set(keys);
  vGradient.set(values);
}

function dot(a: Float32Array, atA: number, b: Float32Array, atB: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[atA + i]! * b[atB + i]!;
  return sum;
}
