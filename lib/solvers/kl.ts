import type { SolverOptions } from './solver.js';

/** Bins of a histogram: as many a level, and at least. */
const BINS_PER_LEVEL = 4;
const LEAST_BINS = 128;

/** What part of a group's range may be cut off at an end. */
const CUTS = [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35] as const;
/** Of more than 32 levels: there, the divergence tells that nothing should be. */
const FEW_CUTS = [0, 0.02, 0.05, 0.1] as const;

/** A histogram's bins, and how many of them may be cut off. */
function binsOf(maxCode: number): { readonly bins: number; readonly cuts: readonly number[] } {
  const bins = Math.max(LEAST_BINS, BINS_PER_LEVEL * (maxCode + 1));
  return { bins, cuts: (maxCode < 32 ? CUTS : FEW_CUTS).map((cut) => Math.round(cut * bins)) };
}

/** How many bins; then the first bin of each range that is tried, and the one behind its last. The first range is the whole. */
export function klParameters({ zeroPoint, maxCode }: SolverOptions): Float32Array {
  const { bins, cuts } = binsOf(maxCode);
  const ranges = cuts.flatMap((low) => (zeroPoint === 'symmetric' ? [low] : cuts).map((high) => [low, bins - high]));
  return Float32Array.of(bins, ...ranges.flat());
}

/** What part of its range's scale the scale of a group surely is at least. */
export function leastKlScale({ maxCode }: SolverOptions): number {
  const { bins, cuts } = binsOf(maxCode);
  return 1 - (2 * cuts.at(-1)!) / bins;
}
