import { HqqError, show } from '../messages/errors.js';
import type { ZeroPoint } from '../solvers/solver.js';
import { SOLVERS, type Solver, solverNamed } from '../solvers/solvers.js';

// What the options of `config.ts` are to a solver: its own defaults, and what it cannot do.

/** The options that solvers differ in. */
interface Asked {
  readonly solver: Solver;
  readonly lpNorm: number;
  readonly zeroPoint: ZeroPoint;
  readonly roundZero: boolean;
  readonly scaleDtype: string;
  readonly metaBits: number;
}

/** A solver's own default of an option, where it has one. */
export function ownDefault(name: string, solver: Solver): unknown {
  return name === 'lpNorm' ? solverNamed(solver).lpNorm?.default : undefined;
}

/** What is of the reference's solver first of all: with it and with others it means something else, or nothing. */
const NAMES_SOLVER = ['beta', 'kappa', 'roundZero', 'referenceGuards'] as const;

/**
 * Refuses options that say little unless a solver is named beside them: who gives them has one in mind, which need not be the default.
 * `beta` and `kappa` say enough where an `lpNorm` below 2 tells that errors are to be shrunk.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function rejectWithoutSolver(given: Partial<Record<string, unknown>>): void {
  if (given.solver !== undefined) return;
  const shrinks = typeof given.lpNorm === 'number' && given.lpNorm !== 2;
  for (const name of NAMES_SOLVER) {
    if (given[name] === undefined || given[name] === false) continue;
    const isSchedule = name === 'beta' || name === 'kappa';
    if (isSchedule && shrinks) continue;
    const beside = `a solver beside it (hqq, the reference's, or another)${isSchedule ? ', or an lpNorm in (0, 1]' : ''}`;
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected ${name} to be given with ${beside}, got ${show(given[name])} alone.`,
    );
  }
}

/**
 * Refuses what a solver cannot do.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function rejectForSolver({ solver, lpNorm, zeroPoint, roundZero, scaleDtype, metaBits }: Asked): void {
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
  if (metaBits === 8 && scaleDtype !== 'float32')
    refuse('scaleDtype to be float32 where metaBits is 8', show(scaleDtype));
}
