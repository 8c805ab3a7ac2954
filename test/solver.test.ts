import { expect, test } from 'vitest';
import type { SolveOptions } from '../lib/backend/js/solve/group.js';
import { encode, type Group } from '../lib/backend/js/solve/group.js';
import { toRange } from '../lib/backend/js/solve/range.js';
import { GroupSolver, type Steps } from '../lib/backend/js/solve/solve.js';
import { MAX_ITERATIONS } from '../lib/matrix/constants.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { SOLVERS, solverNamed } from '../lib/solvers/solvers.js';

test('the place of a solver in the list is its id', () => {
  expect(SOLVERS.map((name) => solverNamed(name).id)).toEqual([...SOLVERS.keys()]);
});

test('solver hqq is told its schedule, the least of its thresholds, and whether beta grows', () => {
  const parameters = (config: object) => [
    ...solverNamed('hqq').parameters({ ...resolveQuantConfig({ solver: 'hqq', ...config }), maxCode: 15 }),
  ];
  const f = Math.fround;
  const threshold = (beta: number) => f((1 / beta) ** (1 / 1.5) * 0.999);
  expect(parameters({ lpNorm: 0.5, beta: 4, iterations: 2 })).toEqual(
    [0.5, threshold(4), 0, 0.25, threshold(4), 0.25, threshold(4)].map(f),
  );
  const growing = [0.5, threshold(8), 1, 0.25, threshold(4), 0.125, threshold(8)].map(f);
  expect(parameters({ lpNorm: 0.5, beta: 4, kappa: 2, iterations: 2 })).toEqual(growing);
  expect(parameters({ iterations: MAX_ITERATIONS })).toHaveLength(3 + 2 * MAX_ITERATIONS);
  expect(parameters({ iterations: 1, kappa: 2 })[2]).toBe(0);
});

// What the list of solvers does not use yet, as native/tests/solver.cc: several starts, and steps that move the scale.

const WIDTHS = [1, 0.7, 1.4];

/** Fits scale and zero to the codes by least squares, from ranges of some widths. */
function toy(widths: readonly number[]) {
  return (options: SolveOptions): Steps => {
    const each = (group: Group, visit: (code: number, weight: number) => void) => {
      for (let i = 0; i < group.size; i++) {
        visit(encode(Math.fround(group.scaled[i]! + group.zero), options.maxCode), group.weights[i]!);
      }
    };
    return {
      iterations: 5,
      step(group) {
        let [codes, weights, squares, products] = [0, 0, 0, 0];
        each(group, (code, weight) => {
          codes += code;
          weights += weight;
          squares += code * code;
          products += code * weight;
        });
        const n = group.size;
        const spread = n * squares - codes * codes;
        if (!(spread > 0)) return false;
        const scale = Math.fround((n * products - codes * weights) / spread);
        const zero = Math.fround(codes / n - weights / n / scale);
        if (!(scale > 0) || (scale === group.scale && zero === group.zero)) return false;
        Object.assign(group, { scale, zero, invScale: Math.fround(1 / scale) });
        group.scaleWeights();
        return true;
      },
      starts: {
        count: widths.length,
        start(group, index) {
          toRange(group, options);
          group.invScale = Math.fround(group.invScale / widths[index]!);
          group.scale = Math.fround(1 / group.invScale);
          group.zero = Math.fround(0.5 * options.maxCode - 0.5 * (group.least + group.most) * group.invScale);
        },
        objective(group) {
          let sum = 0;
          each(group, (code, weight) => {
            sum += (weight - (code - group.zero) * group.scale) ** 2;
          });
          return sum;
        },
      },
    };
  };
}

function solve(weights: readonly number[], widths: readonly number[]) {
  const options = {
    maxCode: 3,
    solver: 0,
    parameters: new Float32Array(0),
    zeroKind: 0,
    metaDtype: 0,
    scaleDtype: 0,
  } as const;
  const solver = new GroupSolver(weights.length, weights.length, { ...options, referenceGuards: false }, toy(widths));
  solver.group.weights.set(weights);
  const stats = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0 };
  solver.solve(stats, false);
  const { scale, zero, codes } = solver.group;
  const error = weights.reduce((sum, w, i) => sum + (Math.fround(w) - (codes[i]! - zero) * scale) ** 2, 0);
  return { scale, zero, codes: [...codes], error, stats };
}

test('of several starts the best is kept, and errors are measured where the scale was moved too', () => {
  const chosen = new Set<number>();
  for (let round = 0; round < 200; round++) {
    const weights = Array.from(
      { length: 33 },
      (_, i) => Math.sin(i * 12.9898 + round) ** 3 + Math.sin(i * 78.233 * (round + 1)),
    );
    const all = solve(weights, WIDTHS);
    const single = WIDTHS.map((width) => solve(weights, [width]));
    const best = single.reduce((a, b) => (b.error < a.error ? b : a));
    chosen.add(single.indexOf(best));
    expect([all.scale, all.zero, all.codes]).toEqual([best.scale, best.zero, best.codes]);
    expect(all.stats.squaredError).toBeCloseTo(all.error, 4);
    expect(all.stats.iterations).toBe(Math.max(...single.map(({ stats }) => stats.iterations)));
  }
  expect([...chosen].sort()).toEqual([0, 1, 2]);
});
