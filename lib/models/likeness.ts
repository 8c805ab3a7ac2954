import { narrowBytes, widenBytes } from '../compute/floats.js';
import { lossesOf } from '../containers/rounding.js';
import type { Scratch } from '../containers/scratch.js';
import { DTYPES, type DType } from '../matrix/dtype.js';

/** From the same to less: `rounded` is what the type of the second makes of the first, where that took no number to infinity. */
const LIKENESS = ['equal', 'rounded', 'different'] as const;
export type Likeness = (typeof LIKENESS)[number];

/** A tensor is as like another as the least like of its parts. */
export function lessLike(a: Likeness, b: Likeness): Likeness {
  return LIKENESS.indexOf(a) > LIKENESS.indexOf(b) ? a : b;
}

/** How like the same ranges of two tensors are. */
export function likenessOf(a: Uint8Array, aDtype: DType, b: Uint8Array, bDtype: DType, slot: Scratch): Likeness {
  if (aDtype === bDtype) return Buffer.compare(a, b) === 0 ? 'equal' : 'different';
  const values = slot.take('values', Float32Array, a.byteLength / DTYPES[aDtype].bytes);
  widenBytes(a, aDtype, values);
  const rounded = slot.take('rounded', Uint8Array, b.byteLength);
  narrowBytes(values, bDtype, rounded);
  if (Buffer.compare(rounded, b) !== 0) return 'different';
  const back = slot.take('back', Float32Array, values.length);
  widenBytes(rounded, bDtype, back);
  const { rounds, overflows } = lossesOf(values, back);
  if (overflows > 0) return 'different';
  return rounds > 0 ? 'rounded' : 'equal';
}
