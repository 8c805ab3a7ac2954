import type { FloatBits } from '../../../binding.js';
import { widen } from '../../backend/js/lanes.js';
import type { Prune } from '../../matrix/config.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';

// Pruning: weights that count least become zeros, before anything else is made of the matrix.

/** Of how many weights that lie side by side in a row how many are pruned. */
export function unitOf(prune: Prune, width: number): readonly [count: number, of: number] {
  if (typeof prune === 'number') return [Math.floor(prune * width + 1e-6), width]; // .29 of 100 are 29, whatever the product is rounded to
  return prune.split(':').map(Number) as [number, number];
}

/** What is missed by pruning, to be added to what `quantize` measures of the rest: sums over the weights that went. */
export type Missed = readonly [absolute: number, squares: number];

/**
 * Prunes rows of a matrix, in place: of each row, or of each few weights of it, those whose size times the root of their feature's
 * importance is least (Sun et al., arXiv 2306.11695, of inputs' norms); of equal ones the first.
 *
 * @param weights `[rows, width]`
 * @param importance `[width]`
 * @param counts Whether a weight counts in the sums: asked of those that are pruned, in their order. Absent: each does.
 */
export function pruneRows(
  weights: FloatBits,
  dtype: DType,
  width: number,
  prune: Prune,
  importance: Float32Array | undefined,
  counts?: (at: number) => boolean,
): Missed {
  const [count, of] = unitOf(prune, width);
  const roots = importance?.map(Math.sqrt);
  const row = new Float32Array(width);
  const scores = new Float32Array(width);
  const bits = new Uint32Array(scores.buffer); // in the order of the scores, which are positive; above them what is not a number
  let absolute = 0;
  let squares = 0;
  for (let begin = 0; begin < weights.length; begin += width) {
    widen(weights, DTYPES[dtype].id, begin, width, row);
    for (let i = 0; i < width; i++) scores[i] = Math.abs(row[i]!) * (roots ? roots[i]! : 1);
    for (let first = 0; first + of <= width; first += of) {
      let [limit, equal] = of > FEW ? limitOfMany(bits, count) : limitOfFew(bits, first, of, count);
      for (let i = first; i < first + of; i++) {
        if (bits[i]! > limit || (bits[i] === limit && equal-- <= 0)) continue;
        weights[begin + i] = 0;
        if (counts && !counts(begin + i)) continue;
        absolute += Math.abs(row[i]!);
        squares += row[i]! ** 2;
      }
    }
  }
  return [absolute, squares];
}

/** The largest of the `count` least numbers, and how many of these are equal to it. */
type Limit = readonly [limit: number, equal: number];

const tally = new Uint32Array(4096);

/** Of many only those are sorted that begin with the bits of the limit. */
function limitOfMany(bits: Uint32Array, count: number): Limit {
  tally.fill(0);
  for (let i = 0; i < bits.length; i++) tally[bits[i]! >>> 20]!++;
  let start = 0;
  let left = count;
  for (; tally[start]! < left; start++) left -= tally[start]!;
  const alike = bits.filter((one) => one >>> 20 === start).sort();
  const limit = alike[left - 1] ?? -1; // none, where none is to be pruned
  return [limit, left - alike.indexOf(limit)];
}

const FEW = 8;
const few = new Uint32Array(FEW);

function limitOfFew(bits: Uint32Array, first: number, of: number, count: number): Limit {
  for (let i = 0; i < of; i++) {
    const one = bits[first + i]!;
    let at = i;
    for (; at > 0 && few[at - 1]! > one; at--) few[at] = few[at - 1]!;
    few[at] = one;
  }
  const limit = count > 0 ? few[count - 1]! : -1;
  return [limit, count - few.indexOf(limit)];
}
