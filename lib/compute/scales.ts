import { DTYPES, type DType } from '../matrix/dtype.js';
import { HqqError } from '../messages/errors.js';

/** Bits of a float32 that a type does not have. */
const LOST = { float16: 0x1fff, bfloat16: 0xffff } as const;
/** The smallest normal number of float16, and what its numbers below are multiples of. */
const NORMAL = 2 ** -14;
const TINY = 2 ** -24;
/** The largest number of float16. */
const LARGEST = 65504;

/**
 * Refuses scales that `dtype` does not hold: solvers round to it where it does, and leave other scales as they are.
 *
 * @param name What they are the scales of: a tensor's name, or "The weight matrix".
 * @throws {HqqError} `ERR_SCALE_RANGE`
 */
export function checkScales(name: string, scales: Float32Array, dtype: DType): void {
  if (dtype === 'float32') return;
  const bits = new Int32Array(scales.buffer, scales.byteOffset, scales.length);
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i]! & LOST[dtype]) === 0 && dtype === 'bfloat16') continue;
    const size = Math.abs(scales[i]!);
    if ((bits[i]! & LOST[dtype]) === 0 && size >= NORMAL && size <= LARGEST) continue;
    if (dtype === 'float16' && size < NORMAL && Number.isInteger(size / TINY)) continue;
    const others = Object.keys(DTYPES).filter(
      (other) => other !== dtype && !(dtype === 'bfloat16' && other === 'float16'),
    );
    throw new HqqError(
      'ERR_SCALE_RANGE',
      `${name} has a group whose scale is ${scales[i]}, which ${dtype} does not hold. Use scaleDtype ${others.join(' or ')}.`,
    );
  }
}
