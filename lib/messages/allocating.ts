import { HqqError } from './errors.js';

/** Allocates outputs, saying what for where memory does not suffice. */
export function allocating<T>(what: string, allocate: () => T): T {
  try {
    return allocate();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new HqqError('ERR_OUT_OF_MEMORY', `There is not enough memory for ${what}.`, { cause: error });
  }
}
