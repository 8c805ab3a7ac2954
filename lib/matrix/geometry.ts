import { HqqError } from '../messages/errors.js';
import type { ResolvedQuantConfig } from './config.js';

/** How a weight matrix is cut into groups, and the grouped code matrix `[rows, cols]` that packing splits along its rows. */
export interface Geometry {
  /** Number of groups, each with one scale and one zero. */
  readonly groups: number;
  /** Weights per group. */
  readonly size: number;
  /** Axis 1: a row is a group. Axis 0: a row is a position inside every group. */
  readonly rows: number;
  readonly cols: number;
}

type Grouping = Pick<ResolvedQuantConfig, 'groupSize' | 'axis'>;

/**
 * The groups of a `[outFeatures, inFeatures]` matrix, read as one row-major sequence of weights:
 *
 * - axis 1: group `g` holds weights `g * size .. g * size + size - 1`; groups may straddle rows.
 * - axis 0: group `g` holds weights `g, g + groups, g + 2 * groups, ...`.
 *
 * Source: mobiusml/hqq `Quantizer.quantize`.
 *
 * @throws {HqqError} `ERR_GROUP_SIZE` when the group size does not divide the matrix.
 */
export function geometryOf(shape: readonly [number, number], config: Grouping): Geometry {
  const [outFeatures, inFeatures] = shape;
  const count = outFeatures * inFeatures;
  const size = config.groupSize ?? (config.axis === 1 ? inFeatures : outFeatures);
  if (count % size !== 0) {
    throw new HqqError(
      'ERR_GROUP_SIZE',
      `Expected groupSize to divide ${outFeatures} x ${inFeatures} weights, got ${size}. ` +
        `Nearest sizes that do: ${nearestDivisors(count, size).join(', ')}.`,
    );
  }
  const groups = count / size;
  return config.axis === 1 ? { groups, size, rows: groups, cols: size } : { groups, size, rows: size, cols: groups };
}

/** The largest divisor of `count` below `size` and the smallest above it. */
export function nearestDivisors(count: number, size: number): number[] {
  let below = 0;
  let above = Infinity;
  for (let d = 1; d * d <= count; d++) {
    if (count % d !== 0) continue;
    for (const divisor of [d, count / d]) {
      if (divisor < size) below = Math.max(below, divisor);
      if (divisor > size) above = Math.min(above, divisor);
    }
  }
  return [below, above].filter((divisor) => divisor > 0 && divisor < Infinity);
}
