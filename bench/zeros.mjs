// What integer and symmetric zeros cost at best, and how near to that the solver comes: relative errors of gaussian weights at 4 bits, of `joint` and
// of a dense search in float64 that shares nothing with it. Prints one JSON document.
//
//   float       41 x 41 ranges, each to its fixed point
//   integer     every zero of the 16 with 120 scales, each to its fixed point, the zero held
//   symmetric   400 scales, half of them negative, each to its fixed point
import { performance } from 'node:perf_hooks';
import { quantizeSync } from 'hqq';
import { gaussian, randomOf } from '../test/support/random.mjs';

const [BITS, TOP] = [4, 15];
const MIDDLE = 8;
const GROUPS = Number(process.env.HQQ_GROUPS ?? 600);
const ZERO_POINTS = ['float', 'integer', 'symmetric'];

/** Sums over the nearest codes of a grid: of q, q^2 and q w. */
function sumsOf(w, inverse, zero, to) {
  let [codes, squares, products] = [0, 0, 0];
  for (let i = 0; i < w.length; i++) {
    const place = Math.floor(w[i] * inverse + zero + 0.5);
    const q = place < 0 ? 0 : place > TOP ? TOP : place;
    codes += q;
    squares += q * q;
    products += q * w[i];
  }
  [to.codes, to.squares, to.products] = [codes, squares, products];
}

/** The least that steps from a grid leave; with `held` the zero stays. */
function descend(w, known, inverse, zero, held) {
  let least = Infinity;
  const n = w.length;
  const sums = {};
  for (let step = 0; step < 50; step++) {
    sumsOf(w, inverse, zero, sums);
    const { codes, squares, products } = sums;
    const spread = held ? squares - zero * (2 * codes - zero * n) : squares - (codes * codes) / n;
    const along = held ? products - zero * known.sum : products - (codes * known.sum) / n;
    if (!(spread > 0) || along === 0 || (!held && along < 0)) break;
    const left = (held ? known.square : known.square - known.sum ** 2 / n) - along ** 2 / spread;
    if (!(left < least)) break;
    least = left;
    inverse = spread / along;
    if (!held) zero = codes / n - (known.sum / n) * inverse;
  }
  return least;
}

function densest(w, zeroPoint) {
  const known = { sum: w.reduce((a, b) => a + b), square: w.reduce((a, b) => a + b * b, 0) };
  const [low, high] = [Math.min(...w), Math.max(...w)];
  const reach = Math.max(high, -low);
  let least = Infinity;
  const look = (scale, zero, held) => {
    least = Math.min(least, descend(w, known, 1 / scale, zero, held));
  };
  if (zeroPoint === 'float') {
    // the ends from 6 % beyond the range to 40 % inside it
    const cuts = Array.from({ length: 41 }, (_, i) => (-0.06 + (0.46 * i) / 40) * (high - low));
    for (const below of cuts) {
      for (const above of cuts) {
        const scale = (high - above - low - below) / TOP;
        if (scale > 0) look(scale, -(low + below) / scale, false);
      }
    }
    return least;
  }
  if (zeroPoint === 'integer') {
    for (let zero = 0; zero <= TOP; zero++) {
      for (let i = 0; i < 120; i++) look(((0.4 + i / 120) * (high - low)) / TOP, zero, true);
    }
    return least;
  }
  for (let i = 0; i < 200; i++) {
    for (const sign of [1, -1]) look((sign * (0.4 + i / 200) * reach) / (MIDDLE - 0.5), MIDDLE, true);
  }
  return least;
}

const rows = [];
for (const groupSize of [32, 64, 128]) {
  const data = Float32Array.from({ length: GROUPS * groupSize }, gaussian(randomOf(31), 0.02));
  const all = data.reduce((sum, x) => sum + x * x, 0);
  const groups = Array.from({ length: GROUPS }, (_, g) =>
    Float64Array.from(data.subarray(g * groupSize, (g + 1) * groupSize)),
  );
  for (const zeroPoint of ZERO_POINTS) {
    const begin = performance.now();
    const best = Math.sqrt(groups.reduce((sum, w) => sum + densest(w, zeroPoint), 0) / all);
    const { stats } = quantizeSync({ data, shape: [GROUPS, groupSize] }, { nbits: BITS, groupSize, zeroPoint });
    rows.push({ groupSize, zeroPoint, best, joint: stats.relativeError, seconds: (performance.now() - begin) / 1e3 });
  }
}
console.log(JSON.stringify({ bits: BITS, groups: GROUPS, rows }));
