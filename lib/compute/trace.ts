import type { QuantizeArgs, Step } from '../../binding.js';
import type { ResolvedQuantConfig } from '../matrix/config.js';
import { solverNamed } from '../solvers/solvers.js';
import { readStats, solverArgs } from './arguments.js';

// What a solver minimises, iteration by iteration.

/**
 * Stops a solver after each of its iterations but the last, `iterations`, whose result there is: the same bytes as it has on its way
 * there, since no step depends on how many follow.
 */
export function traceJob(args: QuantizeArgs, config: ResolvedQuantConfig, iterations: number) {
  const shared = {
    packed: args.packed.slice() as typeof args.packed,
    scale: new Float32Array(args.scale.length),
    zero: new Float32Array(args.zero.length),
  };
  const stats = Array.from({ length: Math.max(0, iterations - 1) }, () => new Float64Array(5));
  const steps = stats.map((own, index): Step => {
    const { parameters } = solverArgs({ ...config, iterations: index + 1 });
    return { operation: 'quantize', args: { ...args, ...shared, parameters, stats: own } };
  });
  return { steps, stats };
}

/**
 * The sum of squared errors where the solver has no exponent, or 2; else the sum of absolute errors, by whose mean the reference stops: of exponents below 1 the sums say little.
 */
export function objective(stats: Float64Array, { solver, lpNorm }: ResolvedQuantConfig): number {
  const { absError, squaredError } = readStats(stats);
  return solverNamed(solver).lpNorm === undefined || lpNorm === 2 ? squaredError : absError;
}
