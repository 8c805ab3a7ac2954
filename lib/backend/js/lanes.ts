import type { DTypeId, FloatBits } from '../../../binding.js';
import { LANES } from '../../matrix/constants.js';

/** Single-precision arithmetic for the JavaScript backend: the same operations, in the same order, as native/simd. */

const f = Math.fround;
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
const signedBits = new Int32Array(float.buffer);

/** Adding and taking away 1.5 * 2^23 leaves a whole number, rounded half to even. */
const MAGIC = 12582912;

/** `V::round`: half to even. Beyond 2^22 there may be nothing to round, and no room for the trick. */
export function roundEven(x: number): number {
  if (x > -4194304 && x < 4194304) return f(f(x + MAGIC) - MAGIC);
  const below = Math.floor(x);
  const rest = x - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) || Number.isNaN(rest) ? below : below + 1;
}

/** `V::sum`: lanes i and i + 8, then i + 4, i + 2, i + 1. Clobbers `lanes`. */
export function sumLanes(lanes: Float32Array | Float64Array): number {
  for (let width = LANES / 2; width >= 1; width /= 2) {
    for (let i = 0; i < width; i++) lanes[i] = lanes[i]! + lanes[i + width]!;
  }
  return lanes[0]!;
}

export function floatOfHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const rest = half & 0x7fff;
  if (rest >= 0x7c00) bits[0] = sign | 0x7f800000 | ((rest & 0x3ff) << 13) | (rest > 0x7c00 ? 1 << 22 : 0);
  else if (rest >= 0x400) bits[0] = sign | ((rest << 13) + (112 << 23));
  else {
    float[0] = rest * 2 ** -24;
    bits[0] = bits[0]! | sign;
  }
  return float[0]!;
}

export function halfOfFloat(x: number): number {
  float[0] = x;
  const u = bits[0]!;
  const sign = (u >>> 16) & 0x8000;
  const rest = u & 0x7fffffff;
  if (rest > 0x7f800000) return sign | 0x7e00 | ((rest >>> 13) & 0x3ff);
  if (rest >= 0x477ff000) return sign | 0x7c00; // rounds to 2^16: infinity
  if (rest >= 0x38800000) {
    const shifted = rest - (112 << 23);
    return sign | ((shifted + 0xfff + ((shifted >>> 13) & 1)) >>> 13);
  }
  // Subnormal: adding 0.5 leaves units of 2^-24 in the low bits of the sum, rounded by the addition itself.
  bits[0] = rest;
  float[0] = float[0]! + 0.5;
  return sign | (bits[0]! - 0x3f000000);
}

export function floatOfBfloat(value: number): number {
  bits[0] = value << 16;
  return float[0]!;
}

export function bfloatOfFloat(x: number): number {
  float[0] = x;
  const u = bits[0]!;
  if ((u & 0x7fffffff) > 0x7f800000) return (u >>> 16) | 0x40;
  return ((u + 0x7fff + ((u >>> 16) & 1)) >>> 16) & 0xffff;
}

/** `x` rounded to the element type, as a float. */
export function roundTo(dtype: DTypeId, x: number): number {
  if (dtype === 1) return floatOfHalf(halfOfFloat(x));
  if (dtype === 2) return floatOfBfloat(bfloatOfFloat(x));
  return f(x);
}

/** `to[at + i * stride] = from[first + i]`, as float32. */
export function widen(
  from: FloatBits,
  dtype: DTypeId,
  first: number,
  count: number,
  to: Float32Array,
  at = 0,
  stride = 1,
): void {
  if (dtype === 0 && stride === 1) {
    to.set((from as Float32Array).subarray(first, first + count), at);
    return;
  }
  const read = dtype === 0 ? (x: number) => x : dtype === 1 ? floatOfHalf : floatOfBfloat;
  for (let i = 0; i < count; i++) to[at + i * stride] = read(from[first + i]!);
}

/** `to[first + i] = from[i]`, rounded to the element type. */
export function narrow(from: Float32Array, count: number, dtype: DTypeId, to: FloatBits, first: number): void {
  if (dtype === 0) {
    to.set(from.subarray(0, count), first);
    return;
  }
  const write = dtype === 1 ? halfOfFloat : bfloatOfFloat;
  for (let i = 0; i < count; i++) to[first + i] = write(from[i]!);
}

const L15 = f(2 / 15);
const L13 = f(2 / 13);
const L11 = f(2 / 11);
const L9 = f(2 / 9);
const L7 = f(2 / 7);
const L5 = f(2 / 5);
const L3 = f(2 / 3);
const LOG2_E = f(1.44269504);
const P6 = f(1.54035304e-4);
const P5 = f(1.33335581e-3);
const P4 = f(9.61812911e-3);
const P3 = f(5.55041087e-2);
const P2 = f(2.40226507e-1);
const P1 = f(6.93147181e-1);

/** `log2_positive` of native/simd/math.h, to the bit. */
export function log2Positive(x: number): number {
  float[0] = x;
  const u = signedBits[0]!;
  signedBits[0] = (u & 0x7fffff) | 0x3f800000;
  const m = float[0]!;
  const t = f(f(m - 1) / f(m + 1));
  const t2 = f(t * t);
  let series = L15;
  for (const term of [L13, L11, L9, L7, L5, L3, 2]) series = f(f(series * t2) + term);
  return f(f(f(series * t) * LOG2_E) + ((u >> 23) - 127));
}

/** `pow_positive` of native/simd/math.h, to the bit. Written out, and on signed words, which engines keep in registers. */
export function powPositive(x: number, e: number): number {
  float[0] = x;
  const u = signedBits[0]!;
  const exponent = (u >> 23) - 127;
  signedBits[0] = (u & 0x7fffff) | 0x3f800000;
  const m = float[0]!;
  const t = f(f(m - 1) / f(m + 1));
  const t2 = f(t * t);
  let series = f(f(L15 * t2) + L13);
  series = f(f(series * t2) + L11);
  series = f(f(series * t2) + L9);
  series = f(f(series * t2) + L7);
  series = f(f(series * t2) + L5);
  series = f(f(series * t2) + L3);
  series = f(f(series * t2) + 2);
  const wide = f(f(f(f(series * t) * LOG2_E) + exponent) * e);
  const y = wide < -126 ? -126 : wide > 126 ? 126 : wide;
  const k = f(f(y + MAGIC) - MAGIC);
  const r = f(y - k);
  let power = f(f(P6 * r) + P5);
  power = f(f(power * r) + P4);
  power = f(f(power * r) + P3);
  power = f(f(power * r) + P2);
  power = f(f(power * r) + P1);
  power = f(f(power * r) + 1);
  signedBits[0] = (k + 127) << 23;
  return f(power * float[0]!);
}
