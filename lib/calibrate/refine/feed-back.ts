import { dequantize, quantize } from '../../compute/quantize.js';
import type { Machine } from '../../compute/run.js';
import type { QuantConfig } from '../../matrix/config.js';
import type { Factor } from './factor.js';
import { multiply } from './grams.js';

/**
 * The weights that groups are to be chosen for, one group of input features after the other, in the factor's order: each with what the
 * errors of those before it leave to it. Whoever quantizes these group by group, with the same options and the importance of the factor,
 * gets the codes that the errors are of. It is nearly these where weights are rounded to 16 bits before, and the errors are nearly theirs
 * where scales and zeros are rounded after: to 16 bits, or to bytes (`metaBits` 8), in sets that are here of one column of groups.
 *
 * @param weights `[outFeatures, width]`
 * @param config with groups of `factor.block` along rows
 */
export async function feedBack(
  weights: Float32Array,
  { width, block, order, feedback, importance }: Factor,
  config: QuantConfig,
  machine: Machine,
): Promise<Float32Array> {
  const rows = weights.length / width;
  const { threads, signal } = machine;
  const wanted = new Float32Array(weights.length);
  const errors = new Float32Array(weights.length); // in the order, 0 for what comes
  const takes = new Float32Array(block * width);
  for (const [step, group] of order.entries()) {
    const [from, place] = [step * block, group * block]; // in the order, and in a row
    const data = new Float32Array(rows * block);
    for (let row = 0; row < rows; row++)
      data.set(weights.subarray(row * width + place, row * width + place + block), row * block);
    if (from > 0) {
      for (let b = 0; b < block; b++)
        for (let i = 0; i < from; i++) takes[b * width + i] = feedback[i * width + from + b]!;
      const more = await multiply({ x: errors, weights: takes, inFeatures: width }, machine);
      for (let i = 0; i < data.length; i++) data[i] = data[i]! + more[i]!;
    }
    const run = { threads, signal };
    const weight = { data, dtype: 'float32', shape: [rows, block] } as const;
    const own = { ...config, groupSize: block };
    const quantized = await quantize(weight, own, { ...run, importance: importance.slice(place, place + block) });
    const got = await dequantize(quantized, run);
    for (let row = 0; row < rows; row++) {
      const at = row * width + place;
      wanted.set(data.subarray(row * block, (row + 1) * block), at);
      for (let b = 0; b < block; b++) errors[row * width + from + b] = weights[at + b]! - got[row * block + b]!;
    }
  }
  return wanted;
}
