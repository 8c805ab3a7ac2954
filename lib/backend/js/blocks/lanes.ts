import { CURVE } from '../../../matrix/block-types.js';
import { LANES } from '../../../matrix/constants.js';
import { floatOfHalf, halfOfFloat } from '../lanes.js';

// The twin of native/kernels/blocks/lanes.h: sixteen sub-blocks side by side, `[count][LANES]`.

const f = Math.fround;

/** Adding it to a float below 2^22 in size, and taking it away, leaves a whole number: half to even. */
const ROUNDING = 12582912;

export const newLanes = () => new Float32Array(LANES);

/** What codes q come to, times importance, where there is some: sums of q, q^2 and q w. */
export interface BlockSums {
  readonly codes: Float32Array;
  readonly squares: Float32Array;
  readonly products: Float32Array;
}

export interface BlockStrip {
  readonly weights: Float32Array;
  /** Undefined: all weights count alike. */
  readonly importance: Float32Array | undefined;
  readonly count: number;
}

export interface BlockRange {
  readonly low: number;
  readonly high: number;
  readonly curved: boolean;
  readonly minima: boolean;
}

const TINY = f(1e-30);

/** `1 / scale`; 0 where there is none. */
export const inverseOf = (scale: number): number => (Math.abs(scale) > TINY ? f(1 / scale) : 0);

/** Place of the number of the curve that is nearest; halfway, the lower one. */
function placeOnCurve(t: number): number {
  let place = 0;
  for (let k = 1; k < CURVE.length; k++) if (t > (CURVE[k - 1]! + CURVE[k]!) / 2) place = k;
  return place;
}

/** The nearest code of `w`: its place. Its number is `CURVE`'s there, or the place itself. */
function placeOf(w: number, inverse: number, offset: number, { low, high, curved, minima }: BlockRange): number {
  const scaled = f(w * inverse);
  if (curved) return placeOnCurve(scaled);
  const t = minima ? f(scaled + offset) : scaled;
  const above = t > low ? t : low;
  const within = above < high ? above : high;
  return f(f(within + ROUNDING) - ROUNDING);
}

/** The nearest codes for scales and minima, and what they come to. */
export function sumCodes(
  { weights, importance, count }: BlockStrip,
  range: BlockRange,
  scales: Float32Array,
  minima: Float32Array,
  sums: BlockSums,
): void {
  for (let lane = 0; lane < LANES; lane++) {
    const inverse = inverseOf(scales[lane]!);
    const offset = f(minima[lane]! * inverse);
    let codes = 0;
    let squares = 0;
    let products = 0;
    for (let i = 0, at = lane; i < count; i++, at += LANES) {
      const w = weights[at]!;
      const place = placeOf(w, inverse, offset, range);
      const q = range.curved ? CURVE[place]! : place;
      const share = importance === undefined ? q : f(importance[at]! * q);
      codes = f(codes + share);
      squares = f(squares + f(share * q));
      products = f(products + f(share * w));
    }
    sums.codes[lane] = codes;
    sums.squares[lane] = squares;
    sums.products[lane] = products;
  }
}

/** Writes the nearest codes, with `bias`, and adds the errors that they leave to `totals`: sums of |w - w'|, (w - w')^2 and w^2. */
export function placeCodes(
  { weights, count }: BlockStrip,
  range: BlockRange,
  scales: Float32Array,
  minima: Float32Array,
  bias: number,
  codes: Uint8Array,
  totals: Float64Array,
): void {
  for (let lane = 0; lane < LANES; lane++) {
    const a = scales[lane]!;
    const b = minima[lane]!;
    const inverse = inverseOf(a);
    const offset = f(b * inverse);
    let size = 0;
    let squares = 0;
    let whole = 0;
    for (let i = 0, at = lane; i < count; i++, at += LANES) {
      const w = weights[at]!;
      const place = placeOf(w, inverse, offset, range);
      // As they are decoded
      const rest = f(w - f(f(a * (range.curved ? CURVE[place]! : place)) - b));
      size = f(size + Math.abs(rest));
      squares = f(squares + f(rest * rest));
      whole = f(whole + f(w * w));
      codes[at] = place + bias;
    }
    totals[0]! += size;
    totals[1]! += squares;
    totals[2]! += whole;
  }
}

/** Rounds to what float16 holds. */
export function toHalf(lanes: Float32Array): void {
  for (let i = 0; i < LANES; i++) lanes[i] = floatOfHalf(halfOfFloat(lanes[i]!));
}

/** The whole number in a range that is nearest. */
export function within(value: number, low: number, high: number): number {
  const above = value > low ? value : low;
  const inside = above < high ? above : high;
  return f(f(inside + ROUNDING) - ROUNDING);
}

/** What scale `s` and minimum `b` take of the sum of squares. */
export function gainOf(s: number, b: number, n: number, x: number, q: number, qq: number, qx: number): number {
  const first = f(s * f(f(f(2 * qx) - f(s * qq)) + f(f(2 * b) * q)));
  return f(first - f(b * f(f(2 * x) + f(b * n))));
}

/** What does not depend on codes. */
export interface BlockKnown {
  readonly least: Float32Array;
  readonly most: Float32Array;
  readonly count: Float32Array;
  readonly inverse: Float32Array;
  readonly sum: Float32Array;
}

export function knowLanes({ weights, importance, count }: BlockStrip, to: BlockKnown): void {
  for (let lane = 0; lane < LANES; lane++) {
    let least = weights[lane]!;
    let most = least;
    let shares = 0;
    let sum = 0;
    for (let i = 0, at = lane; i < count; i++, at += LANES) {
      const w = weights[at]!;
      const share = importance === undefined ? 1 : importance[at]!;
      least = w < least ? w : least;
      most = w > most ? w : most;
      shares = f(shares + share);
      sum = f(sum + f(share * w));
    }
    to.least[lane] = least;
    to.most[lane] = most;
    to.count[lane] = shares;
    to.inverse[lane] = inverseOf(to.count[lane]!);
    to.sum[lane] = sum;
  }
}
