import { BLOCK_GROUPS, LANES } from './constants.js';

/** Weights that a block may hold: its floats (32 KiB) stay in the first-level cache from min/max to codes. */
const BLOCK_WEIGHTS = 8192;

/** Groups of `size` weights that are solved together: the unit over which statistics are summed, on every backend. */
export function blockOf(size: number): number {
  const padded = Math.ceil(size / LANES) * LANES;
  return Math.max(1, Math.min(BLOCK_GROUPS, Math.floor(BLOCK_WEIGHTS / padded)));
}
