import { refit } from './fit.js';
import { encode, type SolveOptions } from './group.js';
import { type Fitted, type Sums, sumCodesOf } from './lanes.js';
import { type LaneSolver, start } from './starts.js';

const f = Math.fround;

/** The twin of native/kernels/solve/hqs.h, which says what the parameters are. */
export function hqs(o: SolveOptions): LaneSolver {
  const { maxCode, parameters } = o;
  const at: Fitted = { s: 1, zero: 0, scale: 1, invScale: 1, cost: 0 };
  const sums: Sums = { codes: 0, squares: 0, products: 0 };

  return {
    solve(lanes, best) {
      const { group, known } = lanes;
      const codes = group.memory.fill(0);
      start(o, 0, 0, lanes, at);
      Object.assign(best, at);
      let iteration = 0;
      for (let moves = true; moves && iteration < parameters.length; iteration++) {
        const pull = parameters[iteration]!;
        const s = f(at.s);
        const { zero } = at;
        let changed = false;
        const codeOf = (i: number, x: number) => {
          const before = codes[i]!;
          const off = f(f(f(x * s) + zero) - before);
          const code = encode(f(f(off * pull) + before), maxCode);
          if (code !== before) changed = true;
          codes[i] = code;
          return code;
        };
        sumCodesOf(group, codeOf, sums);
        moves = refit(o, group.unit, known, sums, at) || changed;
        if (at.cost < best.cost) Object.assign(best, at);
      }
      return iteration;
    },
  };
}
