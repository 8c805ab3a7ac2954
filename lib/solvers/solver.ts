/** Which zeros a group may have: any number; a code; the middle code, with a scale of either sign. */
export const ZERO_POINTS = ['float', 'integer', 'symmetric'] as const;
/** One of `ZERO_POINTS`. */
export type ZeroPoint = (typeof ZERO_POINTS)[number];

/** What solvers may read of the configuration. */
export interface SolverOptions {
  readonly lpNorm: number;
  readonly beta: number;
  readonly kappa: number;
  readonly lambda: number;
  readonly rho: number;
  readonly iterations: number;
  readonly zeroPoint: ZeroPoint;
  /** The highest code. */
  readonly maxCode: number;
}

/** A row of the list of solvers. */
export interface SolverRow {
  readonly name: string;
  /** Whether it moves zeros from where they start: what the reference calls `optimize`. */
  readonly optimizes: boolean;
  /**
   * Whether the scale of a group is that of its range: it follows from the least and the greatest weight alone. Where it is not,
   * `leastScale` bounds it.
   */
  readonly keepsScale: boolean;
  /**
   * What part of the range's scale the scale of a group of `size` weights surely is at least, its zero being float and all weights
   * counting alike; 0 where nothing is sure. It is never more than the whole range.
   */
  readonly leastScale?: (options: SolverOptions, size: number) => number;
  /** The zeros that it can find. */
  readonly zeroPoints: readonly ZeroPoint[];
  /** The exponents that it can minimise, for messages, and the one that it takes unless told. Absent: it looks at squares alone. */
  readonly lpNorm?: {
    readonly default: number;
    readonly expected: string;
    readonly accepts: (lpNorm: number) => boolean;
  };
  /** What kernels are told: its files in native/kernels/solve/ and lib/backend/js/solve/ say what each number is. */
  readonly parameters: (options: SolverOptions) => Float32Array;
}
