/** One option: what the checks read. */
export interface Check<T> {
  readonly default: T;
  /** Completes "Expected <name> to be ...". */
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
}

/** One option, and its flag on the command line. */
export interface Option<T> extends Check<T> {
  /** One line for `--help`. */
  readonly help: string;
  /** How the flag's text becomes a value. Absent: a flag without a value. */
  readonly parse?: (text: string) => unknown;
}

export const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);
export const isOneOf = (list: readonly unknown[]) => (value: unknown) => list.includes(value);
export const isBoolean = (value: unknown) => typeof value === 'boolean';

/** An option that is one of a few. */
export const choice = <T>(list: readonly T[], fallback: T): Check<T> => ({
  default: fallback,
  expected: `one of ${list.join(', ')}`,
  accepts: isOneOf(list),
});
