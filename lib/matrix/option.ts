/** One option: what the checks, the command line's flag and its help all read. */
export interface Option<T> {
  readonly default: T;
  /** Completes "Expected <name> to be ...". */
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
  /** One line for `--help`. */
  readonly help: string;
  /** How the flag's text becomes a value. Absent: a flag without a value. */
  readonly parse?: (text: string) => unknown;
}

export const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);
export const isOneOf = (list: readonly unknown[]) => (value: unknown) => list.includes(value);
export const isBoolean = (value: unknown) => typeof value === 'boolean';
/** Text that is no number stays text, so that the error shows what was typed. */
export const number = (text: string): unknown =>
  text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
