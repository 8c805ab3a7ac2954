import type { BlockType } from '../../matrix/block-types.js';

/** How blocks are found: see `EncodeBlocksArgs`, which has the meaning of each. */
interface Search {
  readonly starts: readonly (readonly [number, number])[];
  readonly steps: number;
  readonly more: number;
  readonly rounds: number;
  readonly searches: number;
}

/** Of a level: a little less than half, so that what lies at an end of the range keeps its code and all others shift. */
const SHIFT = 0.45;

// Found on normal weights, by trying which start lowers the error most beside those before it. Of levels of a code.

/** With minima: cut off below and above. */
const OF_TWO_BITS = [
  [0, 0],
  [SHIFT, SHIFT],
  [SHIFT, 0],
  [0, SHIFT],
] as const;
const OF_FOUR_BITS = [
  [SHIFT, SHIFT],
  [0, 0],
  [-SHIFT, -SHIFT],
  [SHIFT, -SHIFT],
  [-SHIFT, SHIFT],
] as const;
const OF_FIVE_BITS = [...OF_FOUR_BITS, [-1, -1], [-0.9, 0], [0, -0.9]] as const;

/** Without: by how much the larger side reaches beyond the lowest code, and the sign of the scale. */
const FEW_LEVELS = [
  [-0.25, -1],
  [0.25, 1],
  [0.5, -1],
  [-1, -1],
  [0.75, 1],
  [-0.25, 1],
  [0.25, -1],
  [-0.75, -1],
] as const;
const MANY_LEVELS = [-2, -1.25, -0.5, 0.25, 1, 1.75, 2.5, 3.25].flatMap((levels) => [
  [levels, 1] as const,
  [levels, -1] as const,
]);

/** Levels of the curve are no multiples of one: shares of the larger side. */
const ON_CURVE = [1.04, -1, 0.96, -1.12, 1.16, -0.92, -1.04] as const;

function startsOf({ curved, minima, nbits, low, high }: BlockType): Search['starts'] {
  if (curved) return ON_CURVE.map((share) => [share, 0]);
  if (minima) {
    const starts = nbits === 2 ? OF_TWO_BITS : nbits === 4 ? OF_FOUR_BITS : OF_FIVE_BITS;
    return starts.map(([below, above]) => [below / high, above / high]);
  }
  const starts = nbits < 6 ? FEW_LEVELS : MANY_LEVELS;
  return starts.map(([levels, sign]) => [(sign * low) / (low - levels), 0]);
}

/** Least squares. What it leaves is measured by `npm run bench -- ggml`. */
export function searchOf(type: BlockType): Search {
  const starts = startsOf(type);
  // Where scales are whole numbers, rounds of those go on with what steps would.
  const alone = type.meta === undefined;
  // Of two bits a second round of neighbours takes a tenth of the time and gains little more than a thousandth.
  if (type.minima) return { starts, steps: 2, more: alone ? 2 : 0, rounds: 2, searches: type.nbits === 2 ? 1 : 2 };
  return { starts, steps: 1, more: alone ? 2 : 1, rounds: 1, searches: 2 };
}

/** The range as it is, rounded to nearest. */
export function rangeOf({ minima }: BlockType): Search {
  return { starts: [[minima ? 0 : 1, 0]], steps: 0, more: 0, rounds: 0, searches: 0 };
}
