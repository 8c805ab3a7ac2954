import type { FloatBits } from '../../binding.js';
import { widen } from '../backend/js/lanes.js';
import type { QuantSums } from '../compute/arguments.js';
import type { ChosenCodes } from '../containers/grid.js';
import type { Range } from '../containers/range.js';
import { inTurns, type Steps } from '../files/event-loop.js';
import { DTYPES, type DType } from '../matrix/dtype.js';

// Layers whose codes, scales and zeros somebody has chosen: no solver is asked.

/** Weights that are measured between turns, or a group. */
const AT_ONCE = 1 << 15;

/** What was chosen for a chunk. */
export interface ChosenPart {
  /** In the order of its ranges. */
  readonly codes: Uint8Array;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
}

/** Takes a chunk's part of what was chosen for a layer, in memory that is given. */
export function takeChosen(
  chosen: ChosenCodes,
  weights: readonly Range[],
  groups: readonly Range[],
  { codes, scale, zero }: ChosenPart,
): void {
  gather(chosen.codes, weights, codes);
  gather(chosen.scale, groups, scale);
  gather(chosen.zero, groups, zero);
}

function gather<T extends Uint8Array | Float32Array>(from: T, ranges: readonly Range[], to: T): void {
  let offset = 0;
  for (const { at, count } of ranges) {
    to.set(from.subarray(at, at + count), offset);
    offset += count;
  }
}

/**
 * How far the numbers of codes are from the weights: as `quantize` measures it, in another order of sums.
 *
 * @param stride Columns of the grouped matrix on axis 0, whose groups these are; 0: each `size` weights that follow each other are a group.
 */
export async function sumsOfChosen(
  weights: FloatBits,
  dtype: DType,
  part: ChosenPart,
  size: number,
  stride: number,
  signal: AbortSignal,
): Promise<QuantSums> {
  return inTurns(errorsOf(weights, dtype, part, size, stride), signal);
}

function* errorsOf(
  weights: FloatBits,
  dtype: DType,
  { codes, scale, zero }: ChosenPart,
  size: number,
  stride: number,
): Steps<QuantSums> {
  const sums = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0, badIndex: -1 };
  const length = stride || size;
  const row = new Float32Array(length);
  for (let begin = 0; begin < codes.length; begin += length) {
    widen(weights, DTYPES[dtype].id, begin, length, row);
    for (let i = 0; i < length; i++) {
      const group = stride ? i : begin / size;
      const weight = row[i]!;
      if (!Number.isFinite(weight)) return { ...sums, badIndex: begin + i };
      const error = Math.abs(weight - Math.fround(Math.fround(codes[begin + i]! - zero[group]!) * scale[group]!));
      sums.absError += error;
      sums.squaredError += error * error;
      sums.squaredWeight += weight * weight;
    }
    if (begin % AT_ONCE < length) yield;
  }
  return sums;
}
