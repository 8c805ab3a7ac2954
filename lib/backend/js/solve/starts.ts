import type { Group, SolveOptions, State } from './group.js';
import type { Fitted, Known } from './lanes.js';
import { INTEGER, MOST_ZERO, middleCode, SYMMETRIC, wholeZero } from './range.js';

// The twin of native/kernels/solve/starts.h: where solvers that fit scale and zero together start.

const f = Math.fround;

/** What such a solver is told of a group. */
export interface Lanes {
  readonly group: Group;
  readonly known: Known;
  /** The range. */
  readonly range: State;
}

/** What a solver that fits scale and zero together gives: where a group ends, in `at`; returns its steps. */
export interface LaneSolver {
  readonly solve: (lanes: Lanes, at: Fitted) => number;
}

/** Puts a start into `at`: `first` and `second` are what native/kernels/solve/starts.h says. */
export function start(o: SolveOptions, first: number, second: number, { group, range }: Lanes, at: Fitted): void {
  const { maxCode, zeroKind } = o;
  const { least, most, magnitude, unit } = group;
  let s = range.invScale;
  let { zero } = range;
  if (zeroKind === SYMMETRIC) {
    const turned = most > -least !== first < 0;
    const size = f((middleCode(maxCode) + second) / magnitude);
    if (first !== 0) s = turned ? -size : size;
  } else {
    const ratio = maxCode / (maxCode - first - second);
    const real = zeroKind === INTEGER ? 0 - (least < 0 ? least : 0) * s : zero;
    zero = f((real - first) * ratio);
    s = f(s * ratio);
    if (zeroKind === INTEGER) zero = wholeZero(zero, maxCode);
  }
  const size = Math.abs(s);
  const takes =
    (most > least || zeroKind === SYMMETRIC) && size >= 2 ** -126 && size <= 2 ** 120 && Math.abs(zero) <= MOST_ZERO;
  at.invScale = takes ? s : range.invScale;
  at.zero = takes ? zero : range.zero;
  at.scale = at.invScale === range.invScale ? range.scale : f(1 / at.invScale);
  at.s = at.invScale * (1 / unit);
  at.cost = Infinity;
}
