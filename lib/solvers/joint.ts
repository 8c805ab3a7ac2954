import type { SolverOptions } from './solver.js';
import { startsOf } from './starts.js';

/** How many starts take a second step, of few bits more: there what the first one leaves tells less of what the last will. */
function keptStarts(zeroPoint: SolverOptions['zeroPoint'], maxCode: number): number {
  if (zeroPoint === 'symmetric') return 2; // of many starts, which lie close together
  return zeroPoint === 'float' && maxCode <= 7 ? 4 : 3;
}

/**
 * `lpNorm`, how many starts take a second step (at most 4), 1 where beta grows, how many starts; each start's two numbers;
 * then `1 / beta` of each iteration, beta in levels.
 */
export function jointParameters({ lpNorm, beta, kappa, iterations, zeroPoint, maxCode }: SolverOptions): Float32Array {
  const starts = startsOf(zeroPoint, maxCode);
  const schedule = Array.from({ length: iterations }, (_, i) => 1 / (beta * kappa ** i));
  const grows = Math.fround(schedule[0]!) !== Math.fround(schedule.at(-1)!);
  return Float32Array.of(
    lpNorm,
    keptStarts(zeroPoint, maxCode),
    grows ? 1 : 0,
    starts.length,
    ...starts.flat(),
    ...schedule,
  );
}

/**
 * What part of the range's scale `R / m` the scale of a group surely is at least, of a solver whose sum of squares is never more than
 * that of the range: docs/numerics.md has the proof.
 */
export function leastFittedScale(options: Pick<SolverOptions, 'zeroPoint' | 'maxCode'>, size: number): number {
  const { zeroPoint, maxCode: m } = options;
  if (zeroPoint !== 'float') return 0;
  return Math.max(1 - Math.sqrt(2 * size) / (2 * m), (2 * (m - 1)) / (size * m), 0);
}

/** The same of `joint`, which may minimise another norm. */
export const leastJointScale = (
  options: Pick<SolverOptions, 'lpNorm' | 'zeroPoint' | 'maxCode'>,
  size: number,
): number => (options.lpNorm === 2 ? leastFittedScale(options, size) : 0);
