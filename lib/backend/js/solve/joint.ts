import { powPositive } from '../lanes.js';
import { refit } from './fit.js';
import { encode, type Group, type SolveOptions } from './group.js';
import { type Fitted, type Known, type Sums, sumCodes, sumUp } from './lanes.js';
import { type LaneSolver, type Lanes, start } from './starts.js';

const f = Math.fround;
const TINY = 2 ** -126;
/** Parameters before the starts. */
const HEAD = 4;

/** The twin of native/kernels/solve/joint.h, which says what the parameters are. */
export function joint(o: SolveOptions): LaneSolver {
  const { maxCode, parameters } = o;
  const [lpNorm, most, betaGrows, count] = parameters as unknown as [number, number, number, number];
  const invBeta = parameters.subarray(HEAD + 2 * count);
  const iterations = invBeta.length;
  const squares = lpNorm === 2;
  const exponent = f(lpNorm - 1);
  let at: Fitted = { s: 1, zero: 0, scale: 1, invScale: 1, cost: 0 };
  const next: Fitted = { ...at };
  const kept = Array.from({ length: Math.min(most, count) }, () => ({ ...at }));
  const sums: Sums = { codes: 0, squares: 0, products: 0 };
  const known: Known = { count: 0, x: 0, xx: 0 };
  const shrunk = new Float64Array(3);

  /** Sums of what shrinkage takes of residuals in levels, e and q e; and of |r|^p. */
  const shrink = (group: Group, { s, zero }: Fitted, inv: number) => {
    const { x, importance, size } = group;
    const weighted = group.sumOfImportance !== 0;
    const terms = (i: number, to: Float32Array) => {
      const scaled = f(x[i]! * s);
      const place = f(scaled + zero);
      const code = encode(place, maxCode);
      const residual = f(place - code);
      const magnitude = Math.abs(residual);
      const slope = powPositive(magnitude > TINY ? magnitude : TINY, exponent);
      const left = f(magnitude - f(inv * slope));
      const taken = left > 0 ? left : 0;
      const signed = residual < 0 ? -taken : taken;
      const h = weighted ? importance[i]! : 1;
      to[0] = f(h * signed);
      to[1] = f(to[0]! * code);
      to[2] = f(h * f(magnitude * slope));
    };
    sumUp(size, terms, shrunk);
  };
  const step = (lanes: Lanes, to: Fitted): boolean => {
    sumCodes(lanes.group, to, maxCode, sums);
    return refit(o, lanes.group.unit, lanes.known, sums, to);
  };
  /** A step of lpNorm below 2: scale and zero are fitted to the weights without their shrunk errors. */
  const shrinkingStep = (lanes: Lanes, iteration: number, to: Fitted): boolean => {
    const { group } = lanes;
    sumCodes(group, to, maxCode, sums);
    shrink(group, to, invBeta[iteration]!);
    const level = to.scale * group.unit;
    Object.assign(known, lanes.known);
    known.x -= shrunk[0]! * level;
    sums.products -= shrunk[1]! * level;
    const before = to.scale;
    return refit(o, group.unit, known, sums, to) || to.scale !== before; // two scales may have one inverse
  };
  const measure = ({ group }: Lanes, to: Fitted): void => {
    shrink(group, to, 0);
    const level = Math.abs(f(to.scale * group.unit));
    to.cost = shrunk[2]! * powPositive(level > TINY ? level : TINY, lpNorm);
  };

  /** A step, and what it costs. */
  const advance = (lanes: Lanes, iteration: number, to: Fitted): void => {
    if (squares) {
      step(lanes, to);
    } else {
      shrinkingStep(lanes, iteration, to);
      measure(lanes, to);
    }
  };
  const again = most > 1 && iterations > 1;

  return {
    solve(lanes, best) {
      for (let k = 0; k < count; k++) {
        start(o, parameters[HEAD + 2 * k]!, parameters[HEAD + 2 * k + 1]!, lanes, at);
        advance(lanes, 0, at);
        // those that cost least, in order: what costs less changes places, as in the twin
        for (let i = 0; i < kept.length; i++) if (i >= k || at.cost < kept[i]!.cost) [at, kept[i]] = [kept[i]!, at];
      }
      let iteration = again ? 2 : 1;
      for (const one of kept) {
        if (again) advance(lanes, 1, one);
        if (one === kept[0] || one.cost < best.cost) Object.assign(best, one);
      }
      if (squares) {
        for (let moves = true; moves && iteration < iterations; iteration++) moves = step(lanes, best);
        return iteration;
      }
      Object.assign(at, best);
      for (let moves = true; moves && iteration < iterations; iteration++) {
        moves = shrinkingStep(lanes, iteration, at) || betaGrows !== 0;
        Object.assign(next, at);
        measure(lanes, next);
        if (next.cost < best.cost) Object.assign(best, next);
      }
      return iteration;
    },
  };
}
