import type { ImportanceArgs } from '../../binding.js';
import type { Geometry } from '../matrix/geometry.js';
import { checkArray } from '../matrix/validate.js';
import { HqqError } from '../messages/errors.js';

/** Groups that follow each other, as ranges of a matrix have them. */
export interface GroupRange {
  readonly at: number;
  readonly count: number;
}

/**
 * What backends are told of importance: the feature that each group starts with.
 *
 * @param values One number an input feature.
 * @param geometry Of the whole matrix.
 * @param ranges The groups that are solved, one range after the other.
 * @param starts Written, one for each of them.
 */
export function importanceArgs(
  values: Float32Array,
  { cols, size }: Geometry,
  axis: 0 | 1,
  ranges: readonly GroupRange[],
  starts: Int32Array,
): ImportanceArgs {
  const features = values.length;
  const apart = axis === 1 ? size : 1; // weights from a group's first to that of the next
  let index = 0;
  for (const { at, count } of ranges) {
    for (let group = at; group < at + count; group++) starts[index++] = (group * apart) % features;
  }
  return { values, starts, stride: axis === 1 ? 1 : cols };
}

/**
 * A copy of somebody's importance, checked.
 *
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`
 */
export function readImportance(importance: Float32Array, inFeatures: number): Float32Array {
  checkArray(importance, 'importance', 'Float32Array', inFeatures, `for ${inFeatures} input features`);
  const values = Float32Array.from(importance);
  const bad = values.findIndex((value) => !(value >= 0 && value < Infinity));
  if (bad < 0) return values;
  const message = `Expected importance to be finite and at least 0, got ${values[bad]} at index ${bad}.`;
  throw new HqqError('ERR_INVALID_ARGUMENT', message);
}
