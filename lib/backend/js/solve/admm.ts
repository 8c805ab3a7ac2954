import { refit } from './fit.js';
import { encode, type SolveOptions } from './group.js';
import { type Fitted, type Sums, sumCodes, sumCodesOf } from './lanes.js';
import { type LaneSolver, start } from './starts.js';

const f = Math.fround;

/** A float without its last 8 bits, rounded. */
function shortened(x: number): number {
  const wide = f(x * 257);
  return f(wide - f(wide - x));
}

/** The twin of native/kernels/solve/admm.h, which says what the parameters are. */
export function admm(o: SolveOptions): LaneSolver {
  const { maxCode, parameters: shares } = o;
  const at: Fitted = { s: 1, zero: 0, scale: 1, invScale: 1, cost: 0 };
  const sums: Sums = { codes: 0, squares: 0, products: 0 };
  /** w + y */
  let both = new Float32Array(0);

  return {
    solve(lanes, best) {
      const { group, known } = lanes;
      if (both.length < group.size) both = new Float32Array(group.size);
      const codes = group.memory;
      start(o, 0, 0, lanes, at);
      Object.assign(best, at);
      const [from, fromZero] = [f(at.s), at.zero];
      sumCodesOf(
        group,
        (i, x) => {
          both[i] = x + x;
          codes[i] = encode(f(f(x * from) + fromZero), maxCode);
          return codes[i]!;
        },
        sums,
      );
      let beside = 0;
      for (let iteration = 1; ; iteration++) {
        const moves = refit(o, group.unit, known, sums, at);
        if (at.cost < best.cost) Object.assign(best, at);
        const settles = iteration > 1 && shares[iteration - 1]! <= 0.5;
        if (iteration === shares.length || (settles && !moves)) return iteration;
        const share = shares[iteration]!;
        if (share === 0.5) {
          sumCodes(group, { ...at, s: f(at.s) }, maxCode, sums);
          continue;
        }
        const s = f(at.s);
        const slope = shortened(f(at.scale * group.unit * (1 - 2 * share)));
        beside = beside * share - at.zero * slope;
        const zero = f(at.zero + beside * at.s);
        const codeOf = (i: number, x: number) => {
          const y = f(codes[i]! * slope + f(both[i]! * share));
          both[i] = x + y;
          codes[i] = encode(f(f(y * s) + zero), maxCode);
          return codes[i]!;
        };
        sumCodesOf(group, codeOf, sums);
      }
    },
  };
}
