import type { Range } from '../../containers/ranges.js';

/** A group is an outlier where its error is so many times that of the median group of its tensor. */
export const OUTLIER = 2;
/** Outliers of a tensor that are told one by one. */
const TOLD = 24;

/** A group that fits its weights badly. */
export interface OutlierGroup {
  /** Root of its mean squared error, over that of the tensor's median group. */
  readonly times: number;
  /** Its largest weight, without the sign. */
  readonly peak: number;
  /** Where it lies, in words. */
  readonly place: string;
}

/** The errors of a tensor's groups. */
export interface GroupErrors {
  readonly count: number;
  /** Root of the mean squared error of the median group, of all but a hundredth, and of the worst. */
  readonly median: number;
  readonly most: number;
  readonly worst: number;
  /** How many are outliers, and the worst of these. */
  readonly outliers: number;
  readonly told: readonly OutlierGroup[];
}

/** How a matrix lies in groups. */
interface Grid {
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  readonly groupSize: number;
  readonly axis: 0 | 1;
}

/** Sums up the errors of the groups of one matrix: twelve bytes a group. */
export class Groups {
  readonly #grid: Grid;
  readonly #count: number;
  readonly #squared: Float64Array;
  readonly #peaks: Float32Array;

  constructor(grid: Grid) {
    this.#grid = grid;
    this.#count = (grid.shape[0] * grid.shape[1]) / grid.groupSize;
    this.#squared = new Float64Array(this.#count);
    this.#peaks = new Float32Array(this.#count);
  }

  /** Whether a matrix lies in whole groups. */
  static fits({ shape, groupSize }: Grid): boolean {
    return groupSize > 1 && (shape[0] * shape[1]) % groupSize === 0;
  }

  /** Adds ranges of the matrix, one after the other. */
  add(ranges: readonly Range[], weights: Float32Array, errors: Float32Array): void {
    const [squared, peaks, size] = [this.#squared, this.#peaks, this.#grid.groupSize];
    let at = 0;
    for (const range of ranges) {
      for (let i = range.at; i < range.at + range.count; i++, at++) {
        const group = this.#grid.axis === 1 ? Math.floor(i / size) : i % this.#count;
        squared[group] = squared[group]! + errors[at]! * errors[at]!;
        const weight = Math.abs(weights[at]!);
        if (weight > peaks[group]!) peaks[group] = weight;
      }
    }
  }

  errors(): GroupErrors {
    const root = (squared: number) => Math.sqrt(squared / this.#grid.groupSize);
    const sorted = this.#squared.slice().sort();
    const [median, most, worst] = [0.5, 0.99, 1].map((share) =>
      root(sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)]!),
    ) as [number, number, number];
    const limit = median * OUTLIER;
    const found: number[] = [];
    if (median > 0) this.#squared.forEach((squared, group) => root(squared) > limit && found.push(group));
    const told = found
      .sort((a, b) => this.#squared[b]! - this.#squared[a]!)
      .slice(0, TOLD)
      .map((group) => ({
        times: root(this.#squared[group]!) / median,
        peak: this.#peaks[group]!,
        place: this.#place(group),
      }));
    return { count: this.#count, median, most, worst, outliers: found.length, told };
  }

  #place(group: number): string {
    const { shape, groupSize, axis } = this.#grid;
    const width = shape[1];
    if (axis === 0) {
      const [column, row, step] = [group % width, Math.floor(group / width), this.#count / width];
      return step === 1 ? `column ${column}` : `column ${column}, rows ${row}, ${row + step}, ...`;
    }
    const [from, to] = [group * groupSize, (group + 1) * groupSize - 1];
    const [first, last] = [Math.floor(from / width), Math.floor(to / width)];
    if (first !== last) return `rows ${first} to ${last}`;
    return groupSize === width ? `row ${first}` : `row ${first}, columns ${from % width} to ${to % width}`;
  }
}
