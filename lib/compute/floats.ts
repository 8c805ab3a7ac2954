import { narrow, widen } from '../backend/js/lanes.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { allocate, DTYPES, type DType } from '../matrix/dtype.js';

// Numbers on their way to and from the disk.

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
export function roundThrough(values: OwnedFloat32Array, dtype: DType): OwnedFloat32Array {
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
