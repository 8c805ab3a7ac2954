import { refit } from './fit.js';
import { encode, type SolveOptions } from './group.js';
import { type Fitted, type Sums, sumCodesOf } from './lanes.js';
import { type LaneSolver, start } from './starts.js';

const f = Math.fround;

/** The twin of native/kernels/solve/admm.h, which says what the parameters are. */
export function admm(o: SolveOptions): LaneSolver {
  const { maxCode, parameters } = o;
  const [share, pull, iterations] = parameters as unknown as [number, number, number];
  const at: Fitted = { s: 1, zero: 0, scale: 1, invScale: 1, cost: 0 };
  const sums: Sums = { codes: 0, squares: 0, products: 0 };
  /** (w + y) / (1 + rho) */
  let shares = new Float32Array(0);

  return {
    solve(lanes, best) {
      const { group, known } = lanes;
      if (shares.length < group.size) shares = new Float32Array(group.size);
      const codes = group.memory;
      start(o, 0, 0, lanes, at);
      Object.assign(best, at);
      const [from, fromZero] = [f(at.s), at.zero];
      sumCodesOf(
        group,
        (i, x) => {
          shares[i] = f(f(x + x) * share);
          codes[i] = encode(f(f(x * from) + fromZero), maxCode);
          return codes[i]!;
        },
        sums,
      );
      for (let iteration = 1; ; iteration++) {
        refit(o, group.unit, known, sums, at);
        if (at.cost < best.cost) Object.assign(best, at);
        if (iteration === iterations) return iteration;
        const [s, { zero }] = [f(at.s), at];
        const exact = at.scale * group.unit * pull * share;
        const [slope, offset] = [f(exact), f(-zero * exact)];
        const codeOf = (i: number, x: number) => {
          const y = f(shares[i]! + f(f(codes[i]! * slope) + offset));
          shares[i] = f(f(x + y) * share);
          codes[i] = encode(f(f(y * s) + zero), maxCode);
          return codes[i]!;
        };
        sumCodesOf(group, codeOf, sums);
      }
    },
  };
}
