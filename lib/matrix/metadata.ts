import type { FloatBits } from '../../binding.js';
import { highestCode, type ResolvedQuantConfig } from './config.js';

// Scales and zeros that are quantized themselves, to a byte each: mobiusml/hqq `scale_quant_params` and `zero_quant_params`.

/** Scales that share a scale and a zero of their own, in the reference. */
const SET = 128;
/** Smallest set: its two numbers then take four bits of each scale's eight. */
const SMALLEST_SET = 16;

/**
 * How many of `groups` scales share a scale and a zero: 128 as in the reference, which refuses what that does not divide; the
 * largest part of `groups` from 127 to 16; else all.
 */
export function scalesOfSet(groups: number): number {
  for (let size = SET; size >= SMALLEST_SET; size--) if (groups % size === 0) return size;
  return groups;
}

/** The weights of some groups, as they were quantized: a grouped matrix. */
export interface GroupedWeights {
  readonly weights: FloatBits;
  readonly rows: number;
  readonly cols: number;
  readonly axis: 0 | 1;
}

/**
 * Makes scales and zeros fit for company: those that stand far from the others would take their precision away.
 *
 * - A group of equal weights has scale 1, and the weight itself as its zero. It gets the scale with which its weight is the
 *   highest code, or the lowest, and the zero at the other end; zeros get scale 0.
 * - A group whose weights are all on one side of 0, and further from it than their whole range, has its zero that many codes away.
 *   Its range is made to begin at 0.
 */
export function tameMeta(
  scale: Float32Array,
  zero: Float32Array,
  nbits: ResolvedQuantConfig['nbits'],
  of: GroupedWeights,
): void {
  const top = highestCode(nbits);
  for (let g = 0; g < scale.length; g++) {
    const s = scale[g]!;
    const z = zero[g]!; // not as a pair: there are millions of groups, and an array for each would be half a gigabyte of garbage
    if (s === 1 && isConstant(of, g)) {
      scale[g] = Math.abs(z) / top;
      zero[g] = z > 0 ? top : 0;
    } else if (z < -top) {
      scale[g] = (s * (top - z)) / top;
      zero[g] = 0;
    } else if (z > 2 * top) {
      scale[g] = (s * z) / top;
      zero[g] = top;
    }
  }
}

function isConstant({ weights, rows, cols, axis }: GroupedWeights, group: number): boolean {
  const [from, stride, count] = axis === 1 ? [group * cols, 1, cols] : [group, cols, rows];
  for (let i = 1; i < count; i++) if (weights[from + i * stride] !== weights[from]) return false;
  return true;
}
