import type { ZeroPoint } from './solver.js';

/** Two numbers of a start: native/kernels/solve/starts.h says what they are. */
type Start = readonly [number, number];

/** Of a level: a little less than half, so that what lies at an end of the range keeps its code and all others shift. */
const SHIFT = 0.45;
/** Of the range, cut off at each end: what suits long groups, whose ends are rare. */
const WIDE = [0.07, 0.14, 0.22] as const;
/** A range that ends cut off to nearly nothing still has two sides. */
const MOST = 0.48;

const FLOAT: readonly Start[] = [
  [0, 0],
  [SHIFT, SHIFT],
  [SHIFT, 0],
  [0, SHIFT],
  [SHIFT, -SHIFT],
  // Moved the other way: where one end is an outlier's, the range that keeps it whole may be the best.
  [-SHIFT, SHIFT],
];

/** Zeros cannot shift by parts of a level: more ranges, so that each whole zero near the best is tried. */
const INTEGER: readonly Start[] = [
  [0, 0],
  [0.5, 0.5],
  [-0.5, -1],
  [1, 0.5],
  [0.5, 1],
  [0.25, 0.25],
  [-0.75, -1.25],
  [0, -0.5],
  [1, 0],
  [0, 1],
  [1, 1],
];

/** Of how many levels beyond the last code: a range of the larger side alone. */
const SYMMETRIC = [-0.5, 0, 0.5, 1] as const;

/**
 * The starts of a solver that fits scale and zero together, found by trying 361 ranges on gaussian and student-t(5) weights and
 * taking, one by one, those that lower the error most. The first is always the range itself.
 */
export function startsOf(zeroPoint: ZeroPoint, maxCode: number): readonly Start[] {
  if (zeroPoint === 'symmetric') {
    const beyond = [...SYMMETRIC, ...WIDE.slice(0, 2).map((part) => part * maxCode + 2 * SHIFT)];
    return [
      [0, 0],
      ...beyond.flatMap((levels): Start[] => [
        [1, levels],
        [-1, levels],
      ]),
    ];
  }
  const [near, parts] = zeroPoint === 'integer' ? [INTEGER, WIDE.slice(1, 2)] : [FLOAT, WIDE];
  const wide = parts.map((part): Start => [part * maxCode + SHIFT, part * maxCode + SHIFT]);
  const within = (levels: number) => Math.min(levels, MOST * maxCode);
  return [...near, ...wide].map(([a, b]): Start => [within(a), within(b)]);
}
