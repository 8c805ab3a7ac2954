import { ZERO_KINDS } from '../../../solvers/solvers.js';
import { roundEven } from '../lanes.js';
import type { Group, SolveOptions } from './group.js';

// The twin of native/kernels/solve/range.h.

const f = Math.fround;
const TINY = 2 ** -126;
const ROUNDED_START = ZERO_KINDS.indexOf('roundedStart');

/** The start that all solvers share: scale and zero from the least and the largest weight. */
export function toRange(group: Group, { maxCode, zeroKind, referenceGuards }: SolveOptions): void {
  const { least, most, magnitude } = group;
  const invScale = referenceGuards
    ? invScaleOfReference(least, most, maxCode)
    : invScaleOf(least, most, magnitude, maxCode);
  const zero = f(0 - f(least * invScale));
  group.invScale = invScale;
  group.scale = f(1 / invScale);
  group.zero = zeroKind === ROUNDED_START ? roundEven(zero) + 0 : zero;
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
