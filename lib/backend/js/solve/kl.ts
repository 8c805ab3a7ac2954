import { log2Positive } from '../lanes.js';
import type { SolveOptions } from './group.js';
import { INTEGER, SYMMETRIC, toRange } from './range.js';
import type { LaneSolver, Lanes } from './starts.js';

const f = Math.fround;
const MAGIC = 12582912;
const NOTHING = 2 ** -40;

const entropy = (x: number) => f(x * log2Positive(x > NOTHING ? x : NOTHING));

/** The twin of native/kernels/solve/kl.h, which says what the parameters are. */
export function kl(o: SolveOptions): LaneSolver {
  const { maxCode, parameters, zeroKind } = o;
  const bins = parameters[0]!;
  /** What lies below each bin: of weights in double, then of p, and of p log2(p). */
  const sums = new Float64Array(bins + 1);
  const masses = new Float32Array(bins + 1);
  const terms = new Float32Array(bins + 1);

  /** From what each bin holds to p, averaged. */
  const average = () => {
    for (let b = 0; b < bins; b++) sums[b + 1] = sums[b + 1]! + sums[b]!;
    const reach = Math.floor(bins / 16);
    let total = 0;
    for (let b = 0; b < bins; b++) {
      const low = Math.max(b - reach, 0);
      const high = Math.min(b + reach + 1, bins);
      total += (sums[high]! - sums[low]!) * (1 / (high - low));
      masses[b + 1] = total;
    }
    const all = masses[bins]!;
    for (let b = 1; b <= bins; b++) masses[b] = masses[b]! / all;
    for (let b = 0; b < bins; b++) terms[b + 1] = terms[b]! + entropy(f(masses[b + 1]! - masses[b]!));
  };
  const massOf = (first: number, last: number) => f(masses[last]! - masses[first]!);

  const divergence = (first: number, last: number): number => {
    const width = last - first;
    const below = masses[first]!;
    const above = massOf(last, bins);
    const low = massOf(first, first + 1);
    const high = massOf(last - 1, last);
    let sum = f(terms[last]! - terms[first]!);
    sum = f(sum + f(entropy(f(low + below)) - entropy(low)));
    sum = f(sum + f(entropy(f(high + above)) - entropy(high)));
    sum = f(sum + log2Positive(Math.max(massOf(first, last), NOTHING)));
    let from = first;
    for (let code = 0; code <= maxCode; code++) {
      const end = first + Math.floor(((2 * code + 1) * width + maxCode) / (2 * maxCode));
      const to = code === maxCode ? last : end;
      if (to <= from) continue;
      const held = massOf(from, to);
      let mass = held;
      if (from === first) mass = f(mass + below);
      if (to === last) mass = f(mass + above);
      const share = f(Math.max(held, NOTHING) * f(1 / (to - from)));
      sum = f(sum - f(mass * log2Positive(share)));
      from = to;
    }
    return sum;
  };

  const count = ({ group }: Lanes, least: number, width: number) => {
    const { x, importance, size, unit } = group;
    const weighted = group.sumOfImportance !== 0;
    const factor = width > 0 ? f(bins / (width * unit)) : 0;
    const from = f(least * unit);
    const top = bins - 1;
    sums.fill(0);
    for (let i = 0; i < size; i++) {
      const place = f(f(f(x[i]! - from) * factor) - 0.5);
      const inside = place > 0 ? (place < top ? place : top) : 0;
      const bin = f(f(inside + MAGIC) - MAGIC);
      sums[bin + 1] = sums[bin + 1]! + (weighted ? importance[i]! : 1);
    }
  };

  return {
    solve(lanes, to) {
      const { group } = lanes;
      const { least, most, magnitude } = group;
      const low = zeroKind === SYMMETRIC ? -magnitude : zeroKind === INTEGER && least > 0 ? 0 : least;
      const high = zeroKind === SYMMETRIC ? magnitude : zeroKind === INTEGER && most < 0 ? 0 : most;
      const width = high - low;
      count(lanes, low, width);
      average();
      let best = Infinity;
      let [first, last] = [0, bins];
      for (let k = 1; k + 1 < parameters.length; k += 2) {
        const now = divergence(parameters[k]!, parameters[k + 1]!);
        if (k > 1 && !(now < best)) continue;
        best = now;
        first = parameters[k]!;
        last = parameters[k + 1]!;
      }
      const step = width / bins;
      const cutLow = f(low + first * step);
      const cutHigh = f(low + last * step);
      const from = first > 0 && cutLow > least ? cutLow : least;
      const end = last < bins && cutHigh < most ? cutHigh : most;
      const range = { ...to, least: from, most: end, magnitude: -from > end ? -from : end };
      toRange(range, o);
      to.invScale = range.invScale;
      to.scale = range.scale;
      to.zero = range.zero;
      return 1;
    },
  };
}
