import { LANES, SIDE_BY_SIDE } from '../../../matrix/constants.js';
import { sumLanes } from '../lanes.js';
import { encode, type Group } from './group.js';

// The twin of native/kernels/solve/lanes.h: sums over a group, in the order that its size gives.

const f = Math.fround;
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** Vectors after which float sums go on in double. */
const CHUNK = 64;

/** Of q, q^2 and q x; times importance. */
export interface Sums {
  codes: number;
  squares: number;
  products: number;
}

/** What does not change: importance, or the number of weights, and sums of x and x^2. */
export interface Known {
  count: number;
  x: number;
  xx: number;
}

/** Where a group stands: codes are `clamp(round(x * s + zero), 0, maxCode)`. */
export interface Fitted {
  s: number;
  zero: number;
  scale: number;
  invScale: number;
  cost: number;
}

/** `x = w * unit`, which makes the largest magnitude 1 to 2. */
export function normalize(group: Group): void {
  const { weights, x, size, magnitude } = group;
  float[0] = magnitude > 2 ** -126 ? magnitude : 2 ** -126;
  const exponent = Math.min((bits[0]! >>> 23) - 127, 126);
  group.unit = 2 ** -exponent;
  for (let i = 0; i < size; i++) x[i] = weights[i]! * group.unit;
}

const totals = [new Float64Array(LANES), new Float64Array(LANES), new Float64Array(LANES)] as const;
const parts = [new Float32Array(LANES), new Float32Array(LANES), new Float32Array(LANES)] as const;

/**
 * Three sums over a group of `terms(i, to)`, which writes what weight `i` contributes. Up to `SIDE_BY_SIDE` weights are one
 * lane's; of more, weight `i` is lane `i % 16`'s.
 */
export function sumUp(size: number, terms: (i: number, to: Float32Array) => void, to: Float64Array): void {
  const lanes = size <= SIDE_BY_SIDE ? 1 : LANES;
  const term = new Float32Array(3);
  for (const total of totals) total.fill(0);
  for (let first = 0; first < size; first += CHUNK * lanes) {
    const end = Math.min(first + CHUNK * lanes, size);
    for (const part of parts) part.fill(0);
    for (let i = first; i < end; i++) {
      terms(i, term);
      const lane = i % lanes;
      for (let t = 0; t < 3; t++) parts[t]![lane] = parts[t]![lane]! + term[t]!;
    }
    for (let t = 0; t < 3; t++) for (let lane = 0; lane < lanes; lane++) totals[t]![lane]! += parts[t]![lane]!;
  }
  for (let t = 0; t < 3; t++) to[t] = sumLanes(totals[t]!);
}

const three = new Float64Array(3);

/** Sums of x, and of importance. */
export function know(group: Group, to: Known): void {
  const { x, importance, size } = group;
  const weighted = group.sumOfImportance !== 0;
  sumUp(
    size,
    (i, term) => {
      const h = weighted ? importance[i]! : 1;
      const share = f(h * x[i]!);
      term[0] = share;
      term[1] = f(share * x[i]!);
      term[2] = h;
    },
    three,
  );
  to.x = three[0]!;
  to.xx = three[1]!;
  to.count = weighted ? three[2]! : size;
}

/** Sums of codes that `codeOf` gives. */
export function sumCodesOf(group: Group, codeOf: (i: number, x: number) => number, to: Sums): void {
  const { x, importance, size } = group;
  const weighted = group.sumOfImportance !== 0;
  sumUp(
    size,
    (i, term) => {
      const value = x[i]!;
      const code = codeOf(i, value);
      const share = weighted ? f(importance[i]! * code) : code;
      term[0] = share;
      term[1] = f(share * code);
      term[2] = f(share * value);
    },
    three,
  );
  to.codes = three[0]!;
  to.squares = three[1]!;
  to.products = three[2]!;
}

/** The inner loop: codes of the state, and their sums. Written out for groups that are one lane's, which most are. */
export function sumCodes(group: Group, { s, zero }: Fitted, maxCode: number, to: Sums): void {
  const { x, size } = group;
  if (size > SIDE_BY_SIDE || group.sumOfImportance !== 0) {
    sumCodesOf(group, (_, value) => encode(f(f(value * s) + zero), maxCode), to);
    return;
  }
  to.codes = 0;
  to.squares = 0;
  to.products = 0;
  for (let first = 0; first < size; first += CHUNK) {
    const end = Math.min(first + CHUNK, size);
    let codes = f(0);
    let squares = f(0);
    let products = f(0);
    for (let i = first; i < end; i++) {
      const value = x[i]!;
      const place = f(f(value * s) + zero);
      const inside = place < 0 ? 0 : place > maxCode ? maxCode : place;
      const code = f(f(inside + MAGIC) - MAGIC);
      codes = f(codes + code);
      squares = f(squares + f(code * code));
      products = f(products + f(code * value));
    }
    to.codes += codes;
    to.squares += squares;
    to.products += products;
  }
}

const MAGIC = 12582912;
