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
  const lanes = sums.map(() => new Float64Array(LANES));
  let largest = 0;
  for (let first = 0; first < count; first += DISTANCE_TILE) {
    const length = Math.min(DISTANCE_TILE, count - first);
    widen(args.a, args.aDtype, first, length, a);
    widen(args.b, args.bDtype, first, length, b);
    for (const lane of lanes) lane.fill(0);
    const [errors, squares, weights] = lanes as [Float64Array, Float64Array, Float64Array];
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
    lanes.forEach((lane, k) => {
      sums[k] = sums[k]! + sumLanes(lane);
    });
    yield;
  }
  args.stats.set([...sums, largest]);
}
