import type { SolverOptions } from './solver.js';

/**
 * `lpNorm`, the least threshold, and 1 where beta grows; then for each iteration `1 / beta` and the threshold, the largest
 * residual that shrinkage certainly turns into zero.
 *
 * Shrinkage keeps `|x| - |x| ** (p - 1) / beta` of a residual x, so it gives zero up to `(1 / beta) ** (1 / (2 - p))`.
 * The threshold is a little lower, so that whichever way an engine rounds this power, skipping the shrinkage below it
 * changes no bit of the result.
 */
export function hqqParameters({ lpNorm, beta, kappa, iterations }: SolverOptions): Float32Array {
  const schedule: number[] = [];
  for (let i = 0, b = beta; i < iterations; i++, b *= kappa) {
    schedule.push(1 / b, (1 / b) ** (1 / (2 - lpNorm)) * 0.999);
  }
  const least = Math.min(...schedule.filter((_, i) => i % 2 === 1));
  const grows = Math.fround(schedule[0]!) !== Math.fround(schedule.at(-2)!);
  return Float32Array.of(lpNorm, least, grows ? 1 : 0, ...schedule);
}
