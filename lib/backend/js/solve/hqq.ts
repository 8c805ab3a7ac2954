import { LANES } from '../../../matrix/constants.js';
import { powPositive, sumLanes } from '../lanes.js';
import { encode, type Group, type SolveOptions } from './group.js';
import type { Steps } from './solve.js';

const f = Math.fround;
const TINY = 2 ** -126;
const SLACK = f(1e-6);
/** Parameters before the schedule. */
const BEFORE = 3;

/** The twin of native/kernels/solve/hqq.h, which says what the parameters are. */
export function hqq({ maxCode, parameters }: SolveOptions): Steps {
  const exponent = f(parameters[0]! - 1);
  const leastThreshold = parameters[1]!;
  const betaGrows = parameters[2] !== 0;
  const schedule = parameters.subarray(BEFORE);
  return {
    iterations: schedule.length / 2,
    step(group, iteration) {
      const invBeta = schedule[2 * iteration]!;
      const beyond = group.overshoot(maxCode);
      const residual = f(f((beyond < 0.5 ? 0.5 : beyond) * group.scale) + f(group.magnitude * SLACK));
      const overflows = !(f(residual + group.magnitude) < 2 ** 127);
      const keepsTargets = residual <= schedule[2 * iteration + 1]! || overflows;
      let zero: number;
      if (group.sumOfImportance === 0) {
        const targets = keepsTargets ? group.sumOfScaled : sumOfTargets(group, maxCode, invBeta, exponent);
        zero = f((sumOfCodes(group, maxCode) - targets) * (1 / group.size));
      } else {
        const sum = keepsTargets ? weightedSum(group, maxCode) : shrunkWeightedSum(group, maxCode, invBeta, exponent);
        zero = f(sum / group.sumOfImportance);
      }
      const moves = zero !== group.zero || (betaGrows && !(residual <= leastThreshold));
      group.zero = zero;
      return moves;
    },
  };
}

/** Whole numbers: exact in any order. */
function sumOfCodes({ scaled, size, zero }: Group, maxCode: number): number {
  let sum = 0;
  for (let i = 0; i < size; i++) sum += encode(f(scaled[i]! + zero), maxCode);
  return sum;
}

/** `(w - shrink(w - (code - zero) / s)) * s`, with the exponent `lpNorm - 1`. */
function target(w: number, code: number, zero: number, s: number, invBeta: number, exponent: number): number {
  const residual = f(w - f(f(code - zero) / s));
  const magnitude = Math.abs(residual);
  const cut = exponent === 0 ? invBeta : f(invBeta * powPositive(magnitude > TINY ? magnitude : TINY, exponent));
  const left = f(magnitude - cut);
  const shrunk = left > 0 ? left : 0;
  return f(f(w - (residual < 0 ? -shrunk : shrunk)) * s);
}

/** The sum of targets, where a residual may be more than shrinkage takes away. */
function sumOfTargets(group: Group, maxCode: number, invBeta: number, exponent: number): number {
  const { weights, scaled, size, zero, invScale } = group;
  const sums = group.lanes[0].fill(0);
  for (let i = 0; i < size; i++) {
    const code = encode(f(scaled[i]! + zero), maxCode);
    const t = target(weights[i]!, code, zero, invScale, invBeta, exponent);
    sums[i & (LANES - 1)] = sums[i & (LANES - 1)]! + t;
  }
  return sumLanes(sums);
}

/** The sum of `importance * (code - target)` where targets are the weights. */
function weightedSum(group: Group, maxCode: number): number {
  const { importance, scaled, size, zero } = group;
  const sums = group.lanes[0].fill(0);
  for (let i = 0; i < size; i++) {
    const s = scaled[i]!;
    const code = encode(f(s + zero), maxCode);
    sums[i & (LANES - 1)] = sums[i & (LANES - 1)]! + f(importance[i]! * f(code - s));
  }
  return sumLanes(sums);
}

/** The same where a residual may be more than shrinkage takes away. */
function shrunkWeightedSum(group: Group, maxCode: number, invBeta: number, exponent: number): number {
  const { weights, importance, scaled, size, zero, invScale } = group;
  const sums = group.lanes[0].fill(0);
  for (let i = 0; i < size; i++) {
    const code = encode(f(scaled[i]! + zero), maxCode);
    const t = target(weights[i]!, code, zero, invScale, invBeta, exponent);
    sums[i & (LANES - 1)] = sums[i & (LANES - 1)]! + f(importance[i]! * f(code - t));
  }
  return sumLanes(sums);
}
