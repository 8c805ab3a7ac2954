import type { SolveOptions } from './group.js';
import type { Fitted, Known, Sums } from './lanes.js';
import { INTEGER, LEAST_SCALE, MOST_SCALE, MOST_ZERO, middleCode, roundScale, SYMMETRIC } from './range.js';

// The twin of native/kernels/solve/fit.h, which says the formulas.

const f = Math.fround;

/** Moves `at` to what suits the codes that were summed; a group whose codes are all alike stays. Whether it moved. */
export function refit(o: SolveOptions, unit: number, known: Known, sums: Sums, at: Fitted): boolean {
  const { zeroKind, maxCode } = o;
  const isFloat = zeroKind !== INTEGER && zeroKind !== SYMMETRIC;
  const invCount = 1 / known.count;
  const mean = sums.codes * invCount;
  const meanX = known.x * invCount;
  let a = sums.squares - sums.codes * mean;
  let b = sums.products - mean * known.x;
  let c = known.xx - known.x * meanX;
  let zero = 0;
  if (!isFloat) {
    zero = zeroKind === INTEGER ? integerZero(maxCode, known, sums, a, b, at) : middleCode(maxCode);
    a = squareOf(zero, known, sums);
    b = productOf(zero, known, sums);
    c = known.xx;
  }
  if (!(a > 0 && (zeroKind === SYMMETRIC ? b !== 0 : b > 0))) return false;
  const invUnit = 1 / unit;
  const scale = roundScale(f(f(f(b) / f(a)) * invUnit), o.scaleDtype);
  const invScale = f(1 / scale);
  const s = f(invScale * invUnit);
  const newZero = f(isFloat ? mean - meanX * s : zero);
  const size = Math.abs(scale);
  if (!(size >= LEAST_SCALE && size <= MOST_SCALE && Math.abs(newZero) <= MOST_ZERO)) return false;
  const moved = s !== at.s || newZero !== at.zero;
  const fitted = scale * unit;
  at.cost = c - fitted * (2 * b - fitted * a);
  at.s = s;
  at.zero = newZero;
  at.scale = scale;
  at.invScale = invScale;
  return moved;
}

const squareOf = (zero: number, known: Known, sums: Sums) =>
  sums.squares - zero * (2 * sums.codes - zero * known.count);
const productOf = (zero: number, known: Known, sums: Sums) => sums.products - zero * known.x;

/** The better of the codes beside the zero that suits best. */
function integerZero(maxCode: number, known: Known, sums: Sums, a: number, b: number, at: Fitted): number {
  const invCount = 1 / known.count;
  const real = a > 0 && b > 0 ? sums.codes * invCount - known.x * invCount * (a / b) : at.zero;
  const inside = real > 0 ? (real < maxCode ? real : maxCode) : 0;
  const low = Math.floor(inside);
  const high = low + 1 < maxCode ? low + 1 : maxCode;
  const [productLow, productHigh] = [productOf(low, known, sums), productOf(high, known, sums)];
  const lowIsBetter =
    productLow > 0 &&
    productLow * productLow * squareOf(high, known, sums) >= productHigh * productHigh * squareOf(low, known, sums);
  return productHigh > 0 && !lowIsBetter ? high : low;
}
