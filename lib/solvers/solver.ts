/** What solvers may read of the configuration. */
export interface SolverOptions {
  readonly lpNorm: number;
  readonly beta: number;
  readonly kappa: number;
  readonly iterations: number;
}

/** A row of the list of solvers. */
export interface SolverRow {
  readonly name: string;
  /** What it does with zeros, for `--help`. */
  readonly help: string;
  /** Whether it moves zeros from where they start: what the reference calls `optimize`. */
  readonly optimizes: boolean;
  /** What kernels are told: its files in native/kernels/solve/ and lib/backend/js/solve/ say what each number is. */
  readonly parameters: (options: SolverOptions) => Float32Array;
}
