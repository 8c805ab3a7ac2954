import type { DTypeId } from '../../../../binding.js';
import { ZERO_KINDS } from '../../../solvers/solvers.js';
import { roundEven, roundTo } from '../lanes.js';
import type { SolveOptions, State } from './group.js';

// The twin of native/kernels/solve/range.h.

const f = Math.fround;
const TINY = 2 ** -126;
const ROUNDED_START = ZERO_KINDS.indexOf('roundedStart');
export const INTEGER = ZERO_KINDS.indexOf('integer');
export const SYMMETRIC = ZERO_KINDS.indexOf('symmetric');
/** Bounds of scales and zeros: native/kernels/solve/range.h says why. */
export const LEAST_SCALE = 2 ** -120;
export const MOST_SCALE = 2 ** 126;
export const MOST_ZERO = 1048576;

/** What a range follows from. */
export interface Extremes {
  readonly least: number;
  readonly most: number;
  readonly magnitude: number;
}

/** The start that all solvers share: scale and zero from the least and the largest weight. */
export function toRange(
  group: State & Extremes,
  { maxCode, zeroKind, referenceGuards, scaleDtype }: SolveOptions,
): void {
  const { magnitude } = group;
  const least = zeroKind === INTEGER && group.least > 0 ? 0 : group.least;
  const most = zeroKind === INTEGER && group.most < 0 ? 0 : group.most;
  let invScale =
    zeroKind === SYMMETRIC
      ? invScaleOfSymmetric(group, maxCode)
      : referenceGuards
        ? invScaleOfReference(least, most, maxCode)
        : invScaleOf(least, most, magnitude, maxCode);
  group.scale = f(1 / invScale);
  if (scaleDtype !== 0) {
    group.scale = roundScale(group.scale, scaleDtype);
    invScale = f(1 / group.scale);
  }
  group.invScale = invScale;
  const zero = f(0 - f(least * invScale));
  if (zeroKind === SYMMETRIC) group.zero = middleCode(maxCode);
  else if (zeroKind === INTEGER) group.zero = wholeZero(zero, maxCode);
  else group.zero = zeroKind === ROUNDED_START ? roundEven(zero) + 0 : zero;
}

/** A scale, rounded to the type that it is stored in. What that does not hold stays as it is. */
export function roundScale(scale: number, dtype: DTypeId): number {
  if (dtype === 0) return scale;
  const rounded = roundTo(dtype, scale);
  const size = Math.abs(rounded);
  return size > 0 && size < MOST_SCALE ? rounded : scale;
}

/** The zero of symmetric codes. */
export const middleCode = (maxCode: number): number => Math.floor((maxCode + 1) / 2);

/** The code beside a zero, half to even. */
export function wholeZero(zero: number, maxCode: number): number {
  return roundEven(zero > 0 ? (zero < maxCode ? zero : maxCode) : 0) + 0;
}

/** A scale that takes both ends in, of the sign that needs the smaller one. */
function invScaleOfSymmetric({ least, most, magnitude }: Extremes, maxCode: number): number {
  if (!(magnitude > 0)) return 1;
  const below = middleCode(maxCode);
  const above = maxCode - below;
  const low = least < 0 ? 0 - least : 0;
  const high = most > 0 ? most : 0;
  const uprightHigh = above > 0 ? f(high / above) : 0;
  const turnedLow = above > 0 ? f(low / above) : 0;
  const upright = Math.max(f(low / below), uprightHigh);
  const turned = Math.max(f(high / below), turnedLow);
  const turns = above > 0 ? turned < upright : high > low;
  const s = f(1 / (turns ? turned : upright));
  const bounded = s < 2 ** 120 ? s : 2 ** 120;
  const size = bounded > TINY ? bounded : TINY;
  return turns ? -size : size;
}

/** The reference's own guards: ranges up to 1e-4 become one level, and no more than 20,000 levels per unit. */
function invScaleOfReference(least: number, most: number, maxCode: number): number {
  const range = f(most - least);
  const s = range <= f(1e-4) ? 1 : f(f(1 / range) * maxCode);
  return s < 2e4 ? s : 2e4;
}

function invScaleOf(least: number, most: number, magnitude: number, maxCode: number): number {
  if (!(most > least)) return 1;
  const halfRange = f(f(most * 0.5) - f(least * 0.5));
  const s = f(f(0.5 / halfRange) * maxCode);
  const limit = f(1048576 / magnitude);
  const clamped = s < limit ? s : limit;
  const bounded = clamped < 2 ** 120 ? clamped : 2 ** 120;
  return bounded > TINY ? bounded : TINY;
}
