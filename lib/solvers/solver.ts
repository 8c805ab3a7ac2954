import type { QuantizeArgs } from '../../binding.js';
import type { ResolvedQuantConfig } from '../matrix/config.js';
import { BLOCK_GROUPS, LANES } from '../matrix/constants.js';
import type { Geometry } from '../matrix/geometry.js';

/** Weights that a block may hold: its floats (32 KiB) stay in the first-level cache from min/max to codes. */
const BLOCK_WEIGHTS = 8192;

type SolverArgs = Pick<QuantizeArgs, 'maxCode' | 'schedule' | 'lpNorm' | 'roundZero' | 'referenceGuards' | 'block'>;

/** What backends are told of the configuration: every number that both must agree on is computed here, once. */
export function solverArgs(config: ResolvedQuantConfig, geometry: Pick<Geometry, 'size'>): SolverArgs {
  const padded = Math.ceil(geometry.size / LANES) * LANES;
  return {
    maxCode: config.nbits === 1.58 ? 2 : 2 ** config.nbits - 1,
    schedule: config.solver === 'minmax' ? new Float32Array(0) : schedule(config),
    lpNorm: config.lpNorm,
    roundZero: config.roundZero,
    referenceGuards: config.referenceGuards,
    block: Math.max(1, Math.min(BLOCK_GROUPS, Math.floor(BLOCK_WEIGHTS / padded))),
  };
}

/**
 * For each iteration, `1 / beta` and the largest residual that shrinkage certainly turns into zero.
 *
 * Shrinkage keeps `|x| - |x| ** (p - 1) / beta` of a residual x, so it gives zero up to `(1 / beta) ** (1 / (2 - p))`.
 * The threshold is a little lower, so that whichever way an engine rounds this power, skipping the shrinkage below it
 * changes no bit of the result.
 */
function schedule({ beta, kappa, lpNorm, iterations }: ResolvedQuantConfig): Float32Array {
  const rows = new Float32Array(2 * iterations);
  for (let i = 0, b = beta; i < iterations; i++, b *= kappa) {
    rows[2 * i] = 1 / b;
    rows[2 * i + 1] = (1 / b) ** (1 / (2 - lpNorm)) * 0.999;
  }
  return rows;
}
