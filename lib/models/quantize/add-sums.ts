import type { QuantSums } from '../../compute/arguments.js';

/** Of a whole, from its parts. */
export function addSums(parts: readonly QuantSums[]): QuantSums {
  return {
    absError: parts.reduce((sum, part) => sum + part.absError, 0),
    squaredError: parts.reduce((sum, part) => sum + part.squaredError, 0),
    squaredWeight: parts.reduce((sum, part) => sum + part.squaredWeight, 0),
    iterations: parts.reduce((most, part) => Math.max(most, part.iterations), 0),
    badIndex: -1,
  };
}
