import type { SolverOptions } from './solver.js';

/** Iterations in which a penalty below 1 grows to 1. */
const GROWTH = 10;

/** `1 / (1 + rho)` of each iteration, the first of which is not read: its codes are those of the weights themselves. */
export function admmParameters({ rho, iterations }: SolverOptions): Float32Array {
  const penalty = (i: number) => (rho < 1 ? rho ** Math.max(0, 1 - (i - 1) / GROWTH) : rho);
  return Float32Array.from({ length: iterations }, (_, i) => (i === 0 ? 1 : 1 / (1 + penalty(i))));
}
