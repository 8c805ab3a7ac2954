import type { SolverOptions } from './solver.js';

/** `1 / (1 + rho)`, `rho - 1`, iterations. */
export function admmParameters({ rho, iterations }: SolverOptions): Float32Array {
  return Float32Array.of(1 / (1 + rho), rho - 1, iterations);
}
