import { LANES } from '../../../matrix/constants.js';
import { roundTo, sumLanes } from '../lanes.js';
import { encode, type Group, type SolveOptions } from './group.js';

// The twin of native/kernels/solve/finish.h.

const f = Math.fround;

/** Sums over a unit of groups, as the native kernels keep them. */
export interface GroupStats {
  absError: number;
  squaredError: number;
  squaredWeight: number;
  iterations: number;
}

/** Writes the group's codes, and adds what they cost with scale and zero as they will be stored. */
export function finish(group: Group, { maxCode, metaDtype }: SolveOptions, stats: GroupStats): void {
  finishAs(group, roundTo(metaDtype, group.scale), roundTo(metaDtype, group.zero), maxCode, stats);
}

/** The same with what is stored in place of the group's scale and zero. */
export function finishAs(
  group: Group,
  storedScale: number,
  storedZero: number,
  maxCode: number,
  stats: GroupStats,
): void {
  const { zero, scaled, codes, size } = group;
  const scale = Math.abs(group.scale);
  const storedLevels = f(storedScale * group.invScale);
  const [errors, squares, weights] = group.lanes;
  errors.fill(0);
  squares.fill(0);
  weights.fill(0);
  for (let i = 0; i < size; i++) {
    const s = scaled[i]!;
    const code = encode(f(s + zero), maxCode);
    codes[i] = code;
    const levels = f(s - f(f(code - storedZero) * storedLevels));
    const lane = i & (LANES - 1);
    errors[lane] = errors[lane]! + Math.abs(levels);
    squares[lane] = squares[lane]! + f(levels * levels);
    weights[lane] = weights[lane]! + f(s * s);
  }
  stats.absError += sumLanes(errors) * scale;
  stats.squaredError += sumLanes(squares) * scale * scale;
  stats.squaredWeight += sumLanes(weights) * scale * scale;
}
