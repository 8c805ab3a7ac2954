import { refit } from './fit.js';
import { encode, type SolveOptions } from './group.js';
import { type Fitted, type Sums, sumCodes, sumCodesOf } from './lanes.js';
import { type LaneSolver, start } from './starts.js';

const f = Math.fround;

/** The twin of native/kernels/solve/admm.h, which says what the parameters are. */
export function admm(o: SolveOptions): LaneSolver {
  const { maxCode, parameters } = o;
  const [share, pull, iterations] = parameters as unknown as [number, number, number];
  const at: Fitted = { s: 1, zero: 0, scale: 1, invScale: 1, cost: 0 };
  const sums: Sums = { codes: 0, squares: 0, products: 0 };

  return {
    solve(lanes, best) {
      const { group, known } = lanes;
      const y = group.memory;
      y.set(group.x);
      start(o, 0, 0, lanes, at);
      Object.assign(best, at);
      sumCodes(group, at, maxCode, sums);
      for (let iteration = 1; ; iteration++) {
        const [sBefore, zeroBefore] = [f(at.s), at.zero];
        refit(o, group.unit, known, sums, at);
        if (at.cost < best.cost) Object.assign(best, at);
        if (iteration === iterations) return iteration;
        const [s, { zero }] = [f(at.s), at];
        const pulled = f(at.scale * group.unit * pull);
        const codeOf = (i: number, x: number) => {
          const before = y[i]!;
          const code = encode(f(f(before * sBefore) + zeroBefore), maxCode);
          const next = f(f(f(x + before) + f(f(code - zero) * pulled)) * share);
          y[i] = next;
          return encode(f(f(next * s) + zero), maxCode);
        };
        sumCodesOf(group, codeOf, sums);
      }
    },
  };
}
