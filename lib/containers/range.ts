// Which elements of a tensor are meant.

/** Elements of a tensor that lie side by side: `count` from element `at`. */
export interface Range {
  readonly at: number;
  readonly count: number;
}

/** The same elements of every row of a matrix: `count` from element `at` on, `rows` times, `step` elements apart. */
export interface Columns extends Range {
  readonly rows: number;
  readonly step: number;
}

/** Elements of a tensor, in the order of the tensor. Columns are thousands of ranges, for which no list is made. */
export type Ranges = readonly Range[] | Columns;

/** How many ranges these are. */
export const lengthOf = (ranges: Ranges): number => ('rows' in ranges ? ranges.rows : ranges.length);

/** Where one of them begins. */
export const beginOf = (ranges: Ranges, index: number): number =>
  'rows' in ranges ? ranges.at + index * ranges.step : ranges[index]!.at;

/** Elements of one of them. */
export const countAt = (ranges: Ranges, index: number): number =>
  'rows' in ranges ? ranges.count : ranges[index]!.count;

/** One after the other. */
export function* eachOf(ranges: Ranges): Generator<Range> {
  for (let i = 0; i < lengthOf(ranges); i++) yield { at: beginOf(ranges, i), count: countAt(ranges, i) };
}

/** Elements of all ranges. */
export function countOf(ranges: Ranges): number {
  if ('rows' in ranges) return ranges.rows * ranges.count;
  return ranges.reduce((sum, { count }) => sum + count, 0);
}

/** Rows of bytes that are made where they are wanted, so that nobody copies them. */
export interface Made {
  /** Makes them in `into`, each `step` bytes behind the one before. */
  lay(into: Uint8Array, step: number): Promise<void>;
  /** Makes them side by side, in memory of its own. */
  bytes(): Promise<Uint8Array>;
}
