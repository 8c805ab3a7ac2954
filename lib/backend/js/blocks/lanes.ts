import { CURVE } from '../../../matrix/block-types.js';
import { LANES } from '../../../matrix/constants.js';

// The twin of native/kernels/blocks/lanes.h: sixteen sub-blocks side by side, `[count][LANES]`.

const f = Math.fround;

/** Adding and taking away 1.5 * 2^23 leaves a whole number, rounded half to even. */
const MAGIC = 12582912;

export const newLanes = () => new Float32Array(LANES);

/** What codes of a scale and a minimum come to. */
export interface BlockSums {
  readonly error: Float32Array;
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
}

/** Place of the number of the curve that is nearest; halfway, the lower one. */
function placeOnCurve(t: number): number {
  let place = 0;
  for (let k = 1; k < CURVE.length; k++) if (t > (CURVE[k - 1]! + CURVE[k]!) / 2) place = k;
  return place;
}

/** The nearest codes for scales and minima, and what they come to; `codes`, if there, gets them with the bias. */
export function tryCodes(
  { weights, importance, count }: BlockStrip,
  { low, high, curved }: BlockRange,
  scales: Float32Array,
  minima: Float32Array,
  sums: BlockSums,
  codes?: Uint8Array,
  bias = 0,
): void {
  for (let lane = 0; lane < LANES; lane++) {
    const a = scales[lane]!;
    const b = minima[lane]!;
    const inverse = Math.abs(a) > TINY ? f(1 / a) : 0;
    let error = 0;
    let sum = 0;
    let squares = 0;
    let products = 0;
    for (let i = 0, at = lane; i < count; i++, at += LANES) {
      const w = weights[at]!;
      const t = f(f(w + b) * inverse);
      let place: number;
      let q: number;
      if (curved) {
        place = placeOnCurve(t);
        q = CURVE[place]!;
      } else {
        const above = t > low ? t : low;
        const within = above < high ? above : high;
        place = q = f(f(within + MAGIC) - MAGIC);
      }
      const rest = f(w - f(f(a * q) - b));
      const own = importance === undefined ? 1 : importance[at]!;
      const share = f(own * q);
      error = f(error + f(f(own * rest) * rest));
      sum = f(sum + share);
      squares = f(squares + f(share * q));
      products = f(products + f(share * w));
      if (codes !== undefined) codes[at] = place + bias;
    }
    sums.error[lane] = error;
    sums.codes[lane] = sum;
    sums.squares[lane] = squares;
    sums.products[lane] = products;
  }
}

const TINY = f(1e-30);

/** What does not depend on codes. */
export interface BlockKnown {
  readonly least: Float32Array;
  readonly most: Float32Array;
  readonly count: Float32Array;
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
    to.sum[lane] = sum;
  }
}
