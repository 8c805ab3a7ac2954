import type { ImportanceArgs } from '../../binding.js';
import type { Geometry } from '../matrix/geometry.js';
import { type GroupRange, importanceArgs } from './importance.js';

// Some groups of a matrix, which depend on its shape alone: the same ones whatever computes, and whatever is read at once.

/** Weights of a sample: enough that what suits it suits the whole, few enough that trying costs next to nothing. */
const SAMPLE_WEIGHTS = 128 * 1024;

/** Groups that lie side by side are taken in so many runs, evenly spaced: reading them is few calls. */
const RUNS = 64;

/** A grouped matrix `[rows, cols]` of some groups of another. */
export interface Sample {
  readonly rows: number;
  readonly cols: number;
  /** Its weights, in the other's order: one range after the other. */
  readonly weights: readonly GroupRange[];
  readonly groups: readonly GroupRange[];
}

/** Up to 131,072 weights of a grouped matrix, in whole groups; of one that is no larger, all. */
export function sampleOf({ rows, cols, groups, size }: Geometry, axis: 0 | 1): Sample {
  const wanted = Math.min(groups, Math.max(1, Math.floor(SAMPLE_WEIGHTS / size)));
  const runs = wanted === groups ? 1 : Math.min(RUNS, wanted);
  const length = Math.floor(wanted / runs);
  const count = runs * length;
  const taken = Array.from({ length: runs }, (_, i) => ({ at: Math.floor((i * groups) / runs), count: length }));
  if (axis === 1) {
    const weights = taken.map((run) => ({ at: run.at * size, count: run.count * size }));
    return { rows: count, cols, weights, groups: taken };
  }
  const whole = count === groups;
  const row = (index: number) => taken.map((run) => ({ at: index * cols + run.at, count: run.count }));
  const weights = whole ? [{ at: 0, count: rows * cols }] : Array.from({ length: rows }, (_, i) => row(i)).flat();
  return { rows, cols: count, weights, groups: taken };
}

/** The importance of a sample's weights, as backends are told it. `values`: of each input feature. */
export function sampleImportance(
  sample: Sample,
  values: Float32Array,
  geometry: Geometry,
  axis: 0 | 1,
): ImportanceArgs {
  const starts = new Int32Array(axis === 1 ? sample.rows : sample.cols);
  return importanceArgs(values, geometry, axis, sample.groups, starts);
}
