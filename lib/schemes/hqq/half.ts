import { floatOfHalf, halfOfFloat } from '../../backend/js/lanes.js';

// How scales, zeros and biases fare as float16.

/** Below this magnitude float16 loses precision: its smallest normal number. */
export const SMALLEST_SCALE = 2 ** -14;
/** Up to this magnitude float16 moves a zero by at most an eighth of a level, which adds at most some 3 % of error. */
export const LARGEST_ZERO = 512;
/** Most that float16 may take from a number that counts by itself; of normal numbers it takes half of that. */
const MOST_LOSS = 2 ** -10;
/** From here on float16 rounds to infinity. */
export const HALF_OVERFLOW = 65520;

/** How well float16 would hold values: precisely enough, with loss, or not at all. */
type HalfFit = 'holds' | 'loses' | 'overflows';

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
