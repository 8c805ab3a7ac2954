import { HqqError, show } from '../messages/errors.js';
import type { ZeroPoint } from '../solvers/solver.js';
import { SOLVERS, type Solver, solverNamed } from '../solvers/solvers.js';
import type { Prune, QuantConfig } from './config.js';

// What the options of `config.ts` are to a solver: its own defaults, and what it cannot do.

/** Penalties, and the solver that alone reads each. */
export const PENALTIES = { lambda: 'hqs', rho: 'admm' } as const;
/** One of `PENALTIES`. */
export type Penalty = keyof typeof PENALTIES;

/** The options that solvers differ in. */
interface Asked {
  readonly solver: Solver;
  readonly lpNorm: number;
  readonly zeroPoint: ZeroPoint;
  readonly roundZero: boolean;
  readonly scaleDtype: string;
  readonly metaBits: number;
  readonly prune: Prune;
}

/** A solver's own default of an option, where it has one. */
export function ownDefault(name: string, solver: Solver): unknown {
  return name === 'lpNorm' ? solverNamed(solver).lpNorm?.default : undefined;
}

/**
 * The solver that options ask for where they name none: undefined, the default, unless they are of the reference's solver (an `lpNorm`
 * that shrinks errors, its schedule, its guards, its rounding of zeros), or the penalty that one other reads. Who gives the reference's wants what the
 * reference gives.
 */
export function solverAskedFor(given: QuantConfig): Solver | undefined {
  const { lambda, rho, lpNorm, beta, kappa, roundZero, referenceGuards, zeroPoint } = given;
  if (lambda !== undefined) return 'hqs';
  if (rho !== undefined) return 'admm';
  if (lpNorm === 2 || (zeroPoint !== undefined && zeroPoint !== 'float')) return undefined; // which the reference's solver cannot do
  const shrinks = [lpNorm, beta, kappa].some((value) => typeof value === 'number');
  return shrinks || roundZero === true || referenceGuards === true ? 'hqq' : undefined;
}

/**
 * Refuses what a solver cannot do.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function rejectForSolver({ solver, lpNorm, zeroPoint, roundZero, scaleDtype, metaBits, prune }: Asked): void {
  const row = solverNamed(solver);
  const refuse = (expected: string, got: string) => {
    throw new HqqError('ERR_INVALID_OPTION', `Expected ${expected}, got ${got}.`);
  };
  if (!row.zeroPoints.includes(zeroPoint)) {
    const others = SOLVERS.filter((name) => solverNamed(name).zeroPoints.includes(zeroPoint)).join(', ');
    refuse(
      `zeroPoint to be ${row.zeroPoints.join(' or ')} for solver ${solver}`,
      `${show(zeroPoint)}; it takes one of ${others}`,
    );
  }
  if (row.lpNorm && !row.lpNorm.accepts(lpNorm))
    refuse(`lpNorm to be ${row.lpNorm.expected} for solver ${solver}`, `${lpNorm}`);
  if (roundZero && zeroPoint !== 'float') refuse('roundZero to be false where zeroPoint is not float', 'true');
  if (prune !== 0 && zeroPoint === 'float')
    refuse('zeroPoint to be integer or symmetric with prune: a code must stand for 0', zeroPoint);
  if (metaBits === 8 && scaleDtype !== 'float32')
    refuse('scaleDtype to be float32 where metaBits is 8', show(scaleDtype));
}
