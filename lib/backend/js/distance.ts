import type { DistanceArgs } from '../../../binding.js';
import { DISTANCE_TILE, LANES } from '../../matrix/constants.js';
import { sumLanes, widen } from './lanes.js';
import type { Units } from './slices.js';

/** The twin of native/core/distance.cc. */
export function* distance(args: DistanceArgs): Units {
  const count = args.a.length;
  const a = new Float32Array(Math.min(count, DISTANCE_TILE));
  const b = new Float32Array(a.length);
  const sums = [0, 0, 0];
  let largest = 0;
  for (let first = 0; first < count; first += DISTANCE_TILE) {
    const length = Math.min(DISTANCE_TILE, count - first);
    widen(args.a, args.aDtype, first, length, a);
    widen(args.b, args.bDtype, first, length, b);
    largest = Math.max(largest, addDistances(a, b, length, sums));
    yield;
  }
  args.stats.set([...sums, largest]);
}

const LANE_SUMS = [0, 1, 2].map(() => new Float64Array(LANES)) as [Float64Array, Float64Array, Float64Array];

/** Adds those of one tile, of |a - b|, (a - b)^2 and a^2, to `sums`; returns the largest |a - b|. */
export function addDistances(a: Float32Array, b: Float32Array, length: number, sums: number[]): number {
  for (const lane of LANE_SUMS) lane.fill(0);
  const [errors, squares, weights] = LANE_SUMS;
  let largest = 0;
  for (let i = 0; i < length; i++) {
    const x = a[i]!;
    const error = x - b[i]!;
    const magnitude = Math.abs(error);
    const lane = i & (LANES - 1);
    errors[lane] = errors[lane]! + magnitude;
    squares[lane] = squares[lane]! + error * error;
    weights[lane] = weights[lane]! + x * x;
    if (magnitude > largest) largest = magnitude;
  }
  LANE_SUMS.forEach((lane, k) => {
    sums[k] = sums[k]! + sumLanes(lane);
  });
  return largest;
}
