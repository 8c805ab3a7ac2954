import type { SolverOptions } from './solver.js';

/** `1 / (1 + lambda)` of each iteration, the first of which is 1: its codes are those of the weights themselves. */
export function hqsParameters({ lambda, kappa, iterations }: SolverOptions): Float32Array {
  return Float32Array.from({ length: iterations }, (_, i) => (i === 0 ? 1 : 1 / (1 + lambda * kappa ** (i - 1))));
}
