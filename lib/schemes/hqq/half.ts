import { floatOfHalf, halfOfFloat, narrow, widen } from '../../backend/js/lanes.js';
import { allocate, DTYPES, type DType } from '../../matrix/dtype.js';

// Scales, zeros and biases on their way to and from the disk.

/** Below this magnitude float16 loses precision: its smallest normal number. */
const SMALLEST_SCALE = 2 ** -14;
/** Up to this magnitude float16 moves a zero by at most an eighth of a level, which adds at most some 3 % of error. */
const LARGEST_ZERO = 512;
/** Most that float16 may take from a number that counts by itself; of normal numbers it takes half of that. */
const MOST_LOSS = 2 ** -10;
/** From here on float16 rounds to infinity. */
const HALF_OVERFLOW = 65520;

/** How well float16 would hold values: precisely enough, with loss, or not at all. */
export type HalfFit = 'holds' | 'loses' | 'overflows';

export function worse(a: HalfFit, b: HalfFit): HalfFit {
  if (a === 'overflows' || b === 'overflows') return 'overflows';
  return a === 'loses' ? a : b;
}

/**
 * Writes `values` as float16 and tells how well it holds them. What is not finite overflows.
 *
 * @param scales with zeros: their scales. A group of equal weights has scale 1 and the weight itself as its zero, which must
 *   then be as precise as a weight; other zeros are shifts in levels, where little is lost near 0.
 */
export function toHalf(
  values: Float32Array,
  kind: 'scale' | 'zero' | 'bias',
  to: Uint16Array,
  scales?: Float32Array,
): HalfFit {
  // Signed: unsigned 32-bit numbers do not fit the engine's small integers, and the loop would take three times as long.
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length);
  let largest = 0;
  let smallest = 0x7fffffff;
  let mostLost = 0;
  let isWeightLost = false;
  for (let i = 0; i < bits.length; i++) {
    const u = bits[i]!;
    const rest = u & 0x7fffffff;
    if (rest > largest) largest = rest;
    if (rest === 0) {
      to[i] = (u >>> 16) & 0x8000;
      continue;
    }
    if (rest < smallest) smallest = rest;
    // The common case of halfOfFloat in line: a normal number. There are millions of them.
    if (rest >= 0x38800000 && rest < 0x477ff000) {
      const shifted = rest - 0x38000000;
      to[i] = ((u >>> 16) & 0x8000) | ((shifted + 0xfff + ((shifted >>> 13) & 1)) >>> 13);
    } else {
      const value = values[i]!;
      const half = (to[i] = halfOfFloat(value));
      const lost = Math.abs(floatOfHalf(half) - value);
      if (lost > mostLost) mostLost = lost;
      if (scales?.[i] === 1 && lost > MOST_LOSS * Math.abs(value)) isWeightLost = true;
    }
  }
  if (!(floatOf(largest) < HALF_OVERFLOW)) return 'overflows';
  if (kind === 'scale' && floatOf(smallest) < SMALLEST_SCALE) return 'loses';
  if (isWeightLost) return 'loses';
  // Against the largest: beside a bias of 0.1, one of 1e-8 counts for nothing.
  if (kind === 'bias' && mostLost > MOST_LOSS * floatOf(largest)) return 'loses';
  return kind === 'zero' && floatOf(largest) > LARGEST_ZERO ? 'loses' : 'holds';
}

function floatOf(bits: number): number {
  return new Float32Array(Int32Array.of(bits).buffer)[0]!;
}

/** Whether every value is a number. */
export function allFinite(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i]!)) return false;
  return true;
}

/** Bytes of `dtype` as numbers, into `to`. The bytes must lie as aligned as their elements. */
export function widenBytes(bytes: Uint8Array, dtype: DType, to: Float32Array): void {
  widen(bitsOf(bytes, dtype), DTYPES[dtype].id, 0, to.length, to);
}

/** Numbers as bytes of `dtype`, rounded. */
export function narrowBytes(values: Float32Array, dtype: DType, to: Uint8Array): void {
  narrow(values, values.length, DTYPES[dtype].id, bitsOf(to, dtype), 0);
}

/** The elements of `dtype` that lie in `bytes`. */
export function bitsOf(bytes: Uint8Array, dtype: DType): Float32Array | Uint16Array {
  const { buffer, byteOffset, byteLength } = bytes;
  const length = byteLength / DTYPES[dtype].bytes;
  return dtype === 'float32'
    ? new Float32Array(buffer, byteOffset, length)
    : new Uint16Array(buffer, byteOffset, length);
}

/** `values` rounded to `dtype` and back. */
export function roundThrough(values: Float32Array, dtype: DType): Float32Array {
  if (dtype === 'float32') return values;
  const bits = allocate(dtype, values.length);
  narrow(values, values.length, DTYPES[dtype].id, bits, 0);
  const rounded = new Float32Array(values.length);
  widen(bits, DTYPES[dtype].id, 0, values.length, rounded);
  return rounded;
}

/** The bytes of an array. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
