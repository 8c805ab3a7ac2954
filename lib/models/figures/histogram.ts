/** Bins on each side of zero while numbers come in. */
const HALF = 2048;
/** Bins that are told. */
const SHOWN = 96;
/** Of the numbers, how many may lie beyond the bins that are told, on each side. */
const BEYOND = 0.0005;

/** How numbers are spread, in bins of one width, without the few that lie far out. */
export interface Spread {
  /** Where the first bin begins. */
  readonly from: number;
  /** Width of a bin. */
  readonly width: number;
  /** Numbers in each bin. */
  readonly counts: readonly number[];
  /** Numbers below the first bin, and above the last. */
  readonly beyond: readonly [below: number, above: number];
}

/**
 * Counts numbers whose range nobody knows before: bins on both sides of zero, up to a power of two. When a number lies beyond, bins are
 * joined in pairs until it does not, so that counts are exact, and the same in whatever order numbers come.
 */
export class Histogram {
  #counts = new Float64Array(2 * HALF);
  /** Where the last bin ends: a power of two. */
  #end = 2 ** -40;
  #largest = 0;

  /** Counts numbers; those that are not finite are left out. */
  add(numbers: Float32Array): void {
    let largest = 0;
    for (let i = 0; i < numbers.length; i++) {
      const size = Math.abs(numbers[i]!);
      if (size > largest && size < Infinity) largest = size;
    }
    this.#largest = Math.max(this.#largest, largest);
    while (this.#end <= largest) this.#widen();
    const [counts, scale] = [this.#counts, HALF / this.#end];
    for (let i = 0; i < numbers.length; i++) {
      const bin = Math.floor(numbers[i]! * scale) + HALF;
      if (bin >= 0 && bin < 2 * HALF) counts[bin] = counts[bin]! + 1;
    }
  }

  /** Largest number, without its sign. */
  get largest(): number {
    return this.#largest;
  }

  /** What was counted, in few bins of equal width. */
  spread(): Spread {
    const counts = this.#counts;
    const allowed = BEYOND * counts.reduce((sum, count) => sum + count, 0);
    let [first, last] = [0, 2 * HALF - 1];
    for (let sum = counts[first]!; first < last && sum <= allowed; sum += counts[++first]!);
    for (let sum = counts[last]!; last > first && sum <= allowed; sum += counts[--last]!);
    const joined = Math.max(1, Math.ceil((last - first + 1) / SHOWN));
    const shown: number[] = [];
    for (let bin = first; bin <= last; bin += joined) shown.push(sumOf(counts.subarray(bin, bin + joined)));
    const width = this.#end / HALF;
    const end = first + shown.length * joined;
    return {
      from: (first - HALF) * width,
      width: joined * width,
      counts: shown,
      beyond: [sumOf(counts.subarray(0, first)), sumOf(counts.subarray(Math.min(end, counts.length)))],
    };
  }

  #widen(): void {
    const joined = new Float64Array(2 * HALF);
    for (let bin = 0; bin < 2 * HALF; bin++) {
      const to = HALF + Math.floor((bin - HALF) / 2);
      joined[to] = joined[to]! + this.#counts[bin]!;
    }
    this.#counts = joined;
    this.#end *= 2;
  }
}

function sumOf(counts: Float64Array): number {
  return counts.reduce((sum, count) => sum + count, 0);
}
