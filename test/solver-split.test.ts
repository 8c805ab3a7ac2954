import { describe, expect, test } from 'vitest';
import { dequantizeSync, quantizeSync } from '../lib/compute/quantize.js';
import { unpack } from '../lib/index.js';
import { highestCode, type QuantConfig } from '../lib/matrix/config.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { overlay } from '../lib/matrix/overlay.js';
import { openModel } from '../lib/models/entry.js';
import { resolveOptions } from '../lib/models/options.js';
import { quantizeModel } from '../lib/models/quantize/quantize.js';
import { SOLVERS, solverNamed } from '../lib/solvers/solvers.js';
import { expectSameBytes } from './support/bytes.js';
import { freshPath, modelFile, tensorOf } from './support/checkpoints.js';
import { gaussian, randomOf, studentT } from './support/random.mjs';

// Solvers hqs, admm and kl against oracles in float64 that share nothing with them, as the formulas of docs/numerics.md read.
// test/identity.test.ts holds every backend to the same bytes, so that one backend is enough here.

const GROUP = 64;
const GROUPS = 512; // codes of every width fill whole words
const SHAPE = [GROUPS, GROUP] as const;
const WEIGHTS = {
  gaussian: Float32Array.from({ length: GROUPS * GROUP }, gaussian(randomOf(21), 0.02)),
  'student-t(5)': Float32Array.from({ length: GROUPS * GROUP }, studentT(randomOf(22), 5, 0.02)),
} as const;
const NAMES = Object.keys(WEIGHTS) as (keyof typeof WEIGHTS)[];
const SPLITTING = ['hqs', 'admm'] as const;
const ALL = [...SPLITTING, 'kl'] as const;
const ZERO_POINTS = ['float', 'integer', 'symmetric'] as const;

interface Grid {
  readonly scale: number;
  readonly zero: number;
}

const codeOf = (value: number, { scale, zero }: Grid, m: number) => {
  const place = value / scale + zero;
  return Math.min(Math.max(Math.round(place), 0), m);
};
const rangeOf = (w: Float64Array, m: number): Grid => {
  const [least, most] = [Math.min(...w), Math.max(...w)];
  return { scale: (most - least) / m, zero: (-least * m) / (most - least) };
};
const squares = (w: Float64Array, grid: Grid, m: number) =>
  w.reduce((sum, x) => sum + (x - (codeOf(x, grid, m) - grid.zero) * grid.scale) ** 2, 0);

/** Least squares of `w ~ scale * (code - zero)`, and what it leaves. */
function leastSquares(w: Float64Array, codes: readonly number[]): (Grid & { readonly left: number }) | undefined {
  const n = w.length;
  const meanQ = codes.reduce((a, b) => a + b) / n;
  const meanW = w.reduce((a, b) => a + b) / n;
  const spread = codes.reduce((sum, q) => sum + (q - meanQ) ** 2, 0);
  const slope = codes.reduce((sum, q, i) => sum + (q - meanQ) * (w[i]! - meanW), 0) / spread;
  if (!(spread > 0 && slope > 0)) return undefined;
  const zero = meanQ - meanW / slope;
  return { scale: slope, zero, left: w.reduce((sum, x, i) => sum + (x - (codes[i]! - zero) * slope) ** 2, 0) };
}

/** lambda and kappa */
const PENALTIES = [
  [0, 1],
  [0.001, 1],
  [0.1, 1],
  [1, 1],
  [0.01, 1.3],
] as const;

/** What the codes of hqs leave, iteration by iteration. */
function* hqsLeft(w: Float64Array, m: number, lambda: number, kappa: number, iterations: number): Generator<number> {
  let grid = rangeOf(w, m);
  let codes = [...w].map((x) => codeOf(x, grid, m));
  for (let k = 0; k < iterations; k++) {
    grid = leastSquares(w, codes) ?? grid;
    yield w.reduce((sum, x, i) => sum + (x - (codes[i]! - grid.zero) * grid.scale) ** 2, 0);
    const penalty = lambda * kappa ** k;
    const split = [...w].map((x, i) => (x + penalty * (codes[i]! - grid.zero) * grid.scale) / (1 + penalty));
    codes = split.map((v) => codeOf(v, grid, m));
  }
}

const ORACLES = {
  hqs(w: Float64Array, m: number, lambda: number): Grid {
    let grid = rangeOf(w, m);
    let codes = [...w].map((x) => codeOf(x, grid, m));
    for (let k = 0; k < 20; k++) {
      grid = leastSquares(w, codes) ?? grid;
      const split = [...w].map((x, i) => (x + lambda * (codes[i]! - grid.zero) * grid.scale) / (1 + lambda));
      codes = split.map((v) => codeOf(v, grid, m));
    }
    return grid;
  },
  admm(w: Float64Array, m: number, rho: number): Grid {
    let grid = rangeOf(w, m);
    let best: Grid = grid;
    let least = Infinity;
    let v = [...w];
    let u = v.map(() => 0);
    let before: Grid | undefined;
    for (let k = 0; k < 20; k++) {
      const codes = v.map((value, i) => codeOf(value + u[i]!, grid, m));
      const fit = leastSquares(w, codes);
      if (fit) grid = fit;
      if (fit && fit.left < least) [least, best] = [fit.left, fit];
      // A penalty below 1 grows to 1 in ten steps; there, and above, what stays as it was stays for ever.
      const penalty = rho < 1 ? rho ** Math.max(0, 1 - k / 10) : rho;
      const settled = k > 0 && (rho >= 1 || k > 10);
      if (settled && before?.scale === grid.scale && before.zero === grid.zero) return best;
      before = grid;
      const quantized = codes.map((q) => (q - grid.zero) * grid.scale);
      u = u.map((dual, i) => (penalty === 1 ? 0 : dual + v[i]! - quantized[i]!));
      v = v.map((_, i) => (penalty === 1 ? w[i]! : (w[i]! + penalty * (quantized[i]! - u[i]!)) / (1 + penalty)));
    }
    return best;
  },
  kl(w: Float64Array, m: number): Grid {
    const bins = 128;
    const [least, most] = [Math.min(...w), Math.max(...w)];
    const counts = new Array<number>(bins).fill(0);
    for (const x of w) counts[Math.min(bins - 1, Math.floor(((x - least) / (most - least)) * bins))]! += 1;
    const near = counts.map((_, b) => counts.slice(Math.max(0, b - 8), b + 9));
    const averaged = near.map((some) => some.reduce((a, b) => a + b) / some.length);
    const all = averaged.reduce((a, b) => a + b);
    const p = averaged.map((count) => count / all);
    const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
    let best = { divergence: Infinity, first: 0, last: bins };
    const cuts = [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35].map((cut) => Math.round(cut * bins));
    for (const first of cuts) {
      for (const last of cuts.map((cut) => bins - cut)) {
        const inside = p.slice(first, last);
        const reference = [...inside];
        reference[0]! += sum(p.slice(0, first));
        reference[reference.length - 1]! += sum(p.slice(last));
        const levelOf = (b: number) => Math.floor(((b + 0.5) / inside.length) * m + 0.5);
        const levels = inside.map((_, b) => levelOf(b));
        const members = new Map<number, number[]>();
        for (const [b, level] of levels.entries()) members.set(level, [...(members.get(level) ?? []), inside[b]!]);
        const whole = sum(inside);
        const means = new Map([...members].map(([level, some]) => [level, sum(some) / some.length / whole]));
        const q = levels.map((level) => means.get(level)!);
        const divergence = sum(
          reference.map((value, b) => (value > 0 ? value * Math.log2(value / Math.max(q[b]!, 1e-9)) : 0)),
        );
        if (divergence < best.divergence - 1e-6) best = { divergence, first, last };
      }
    }
    const step = (most - least) / bins;
    const [low, high] = [least + best.first * step, least + best.last * step];
    return { scale: (high - low) / m, zero: (-low * m) / (high - low) };
  },
} as const;

/** The squared error of each group, of what the result stands for. */
function errors(data: Float32Array, config: QuantConfig, size = GROUP): Float64Array {
  const q = quantizeSync({ data, shape: [data.length / size, size] }, { ...config, groupSize: size });
  const restored = dequantizeSync(q);
  const sums = new Float64Array(data.length / size);
  for (let i = 0; i < data.length; i++) sums[Math.floor(i / size)]! += (data[i]! - restored[i]!) ** 2;
  return sums;
}

const total = (values: Float64Array) => values.reduce((a, b) => a + b, 0);
const groupOf = (data: Float32Array, g: number) => Float64Array.from(data.subarray(g * GROUP, (g + 1) * GROUP));

describe.each(NAMES)('%s weights', (name) => {
  const data = WEIGHTS[name];

  test.each(ALL.flatMap((solver) => ([4, 3, 2] as const).map((nbits) => [solver, nbits] as const)))(
    '%s at %i bits does what its formula says',
    (solver, nbits) => {
      const m = highestCode(nbits);
      // Of kl the oracle takes long.
      const groups = solver === 'kl' ? 32 : 200;
      const penalties = { hqs: [0, 0.1, 1], admm: [0.5, 0.75, 1.5], kl: [0] }[solver];
      for (const penalty of penalties) {
        const config: QuantConfig = {
          nbits,
          solver,
          ...(solver === 'hqs' ? { lambda: penalty } : solver === 'admm' && { rho: penalty }),
        };
        const { scale, zero } = quantizeSync({ data, shape: SHAPE }, config);
        let [equal, own, oracles] = [0, 0, 0];
        for (let g = 0; g < groups; g++) {
          const w = groupOf(data, g);
          const want = ORACLES[solver](w, m, penalty);
          const got = { scale: scale[g]!, zero: zero[g]! };
          own += squares(w, got, m);
          oracles += squares(w, want, m);
          if (Math.abs(got.scale / want.scale - 1) < 1e-3 && Math.abs(got.zero - want.zero) < 1e-2 * m) equal++;
        }
        // Where a weight lies between two codes, rounding decides, and all that follows.
        expect(equal / groups, `penalty ${penalty}`).toBeGreaterThan(0.9);
        expect(Math.abs(own / oracles - 1), `penalty ${penalty}`).toBeLessThan(solver === 'kl' ? 0.05 : 0.005);
      }
    },
  );

  test.each([4, 3, 2, 1.58, 1] as const)('%s bits: the squares of hqs never rise, and it comes to rest', (nbits) => {
    const m = highestCode(nbits);
    const range = errors(data, { nbits, solver: 'minmax' });
    for (const [lambda, kappa] of PENALTIES) {
      const config = { nbits, solver: 'hqs', lambda, kappa } as const;
      let before = range;
      for (let iterations = 1; iterations <= 10; iterations += 3) {
        const now = errors(data, { ...config, iterations });
        // What is stored are the nearest codes: what they leave is no more than what the solver's own do.
        const bound = lambda === 0 ? before : range;
        expect(now.findIndex((error, g) => !(error <= bound[g]! * (1 + 1e-4) + 1e-12))).toBe(-1);
        before = now;
      }
      for (let g = 0; g < 40; g++) {
        const left = [...hqsLeft(groupOf(data, g), m, lambda, kappa, 12)];
        left.forEach((value, k) => expect(value).toBeLessThanOrEqual((left[k - 1] ?? Infinity) * (1 + 1e-9)));
        expect(before[g]!).toBeLessThanOrEqual(left[9]! * (1 + 0.01) + 1e-12);
      }
      const [rest, longer] = [200, 1000].map((iterations) =>
        quantizeSync({ data, shape: SHAPE }, { ...config, iterations }),
      );
      expect(rest!.stats.iterations).toBeLessThan(200);
      expectSameBytes(longer!.packed, rest!.packed);
    }
  });

  test.each([4, 3, 2] as const)(
    '%s bits: neither hqs nor admm is worse than the range, admm about as good as joint',
    (nbits) => {
      for (const zeroPoint of ZERO_POINTS) {
        const range = errors(data, { nbits, solver: 'minmax', zeroPoint });
        for (const solver of SPLITTING) {
          const own = errors(data, { nbits, solver, zeroPoint });
          expect(own.findIndex((error, g) => !(error <= range[g]! * (1 + 1e-4)))).toBe(-1);
        }
        const [admm, joint] = [
          errors(data, { nbits, solver: 'admm', zeroPoint }),
          errors(data, { nbits, solver: 'joint', zeroPoint }),
        ];
        if (zeroPoint === 'float') expect(total(admm)).toBeLessThan(total(joint) * 1.01);
      }
    },
  );
});

test('with a scale and a zero that stay, splitting never moves a code: what refitting is for', () => {
  const m = 15;
  for (let g = 0; g < GROUPS; g++) {
    const w = groupOf(WEIGHTS.gaussian, g);
    const grid = rangeOf(w, m);
    for (const lambda of [0.01, 1, 100]) {
      for (const x of w) {
        const code = codeOf(x, grid, m);
        const split = (x + lambda * (code - grid.zero) * grid.scale) / (1 + lambda);
        expect(codeOf(split, grid, m)).toBe(code);
      }
    }
  }
});

test('the range of kl suits long groups of few bits, and keeps short ones of many', () => {
  const data = Float32Array.from({ length: 2 ** 16 }, gaussian(randomOf(23), 0.02));
  const ratio = (nbits: 8 | 4 | 3 | 2, size: number) =>
    total(errors(data, { nbits, solver: 'kl' }, size)) / total(errors(data, { nbits, solver: 'minmax' }, size));
  expect(ratio(2, 4096)).toBeLessThan(0.5);
  expect(ratio(3, 4096)).toBeLessThan(0.75);
  expect(ratio(4, 4096)).toBeLessThan(0.97);
  for (const nbits of [8, 4, 3] as const) expect(ratio(nbits, 64)).toBeLessThan(1.03);
});

describe.each(ALL)('%s', (solver) => {
  const data = WEIGHTS.gaussian;

  test.each(ZERO_POINTS)('zeroPoint %s, in both axes and every granularity', (zeroPoint) => {
    for (const nbits of [8, 4, 2, 1.58, 1] as const) {
      const codes = new Set(Array.from({ length: highestCode(nbits) + 1 }, (_, code) => code));
      for (const more of [
        { axis: 0 },
        { axis: 1 },
        { granularity: 'channel' },
        { granularity: 'tensor', axis: 0 },
      ] as const) {
        const q = quantizeSync({ data, shape: SHAPE }, { nbits, solver, zeroPoint, ...more });
        if (zeroPoint === 'integer') expect([...q.zero].every((zero) => codes.has(zero))).toBe(true);
        if (zeroPoint === 'symmetric')
          expect(new Set(q.zero)).toEqual(new Set([nbits === 1.58 ? 1 : 2 ** (nbits - 1)]));
        const restored = dequantizeSync(q);
        const sum = data.reduce((all, w, i) => all + (w - restored[i]!) ** 2, 0) / data.length;
        expect(Math.abs(q.stats.meanSquaredError / sum - 1)).toBeLessThan(1e-3);
      }
    }
  });

  test('scales of scaleDtype, and scales and zeros as bytes', () => {
    for (const scaleDtype of ['float16', 'bfloat16'] as const) {
      const { scale, stats } = quantizeSync({ data, shape: SHAPE }, { solver, scaleDtype });
      const lost = scaleDtype === 'float16' ? 0x1fff : 0xffff;
      expect(new Uint32Array(scale.buffer).every((bits) => (bits & lost) === 0)).toBe(true);
      const free = quantizeSync({ data, shape: SHAPE }, { solver });
      expect(stats.relativeError).toBeLessThan(free.stats.relativeError * 1.02);
    }
    const bytes = quantizeSync({ data, shape: SHAPE }, { solver, metaBits: 8 });
    expect(bytes.meta).toBeDefined();
    expect(bytes.stats.relativeError).toBeLessThan(
      quantizeSync({ data, shape: SHAPE }, { solver }).stats.relativeError * 1.02,
    );
  });

  test('every weight is within half a level of what it stands for, and what clamping cuts off', () => {
    for (const nbits of [4, 2] as const) {
      for (const zeroPoint of ZERO_POINTS) {
        const q = quantizeSync({ data, shape: SHAPE }, { nbits, solver, zeroPoint });
        const [codes, restored] = [unpack(q), dequantizeSync(q)];
        const outside = data.findIndex((w, i) => {
          const g = Math.floor(i / GROUP);
          const [scale, place] = [Math.abs(q.scale[g]!), w / q.scale[g]! + q.zero[g]!];
          const beyond = Math.max(-place, place - highestCode(nbits), 0);
          return (
            !(Math.abs(w - restored[i]!) <= Math.max(0.5, beyond) * scale * (1 + 1e-4)) ||
            codes[i]! > highestCode(nbits)
          );
        });
        expect(outside).toBe(-1);
      }
    }
  });

  test('no scale is below what the bound says, from which the type of scales is chosen', () => {
    for (const nbits of [8, 5, 4, 3, 2, 1.58] as const) {
      const m = highestCode(nbits);
      const part = solverNamed(solver).leastScale!({ ...resolveQuantConfig({ solver, nbits }), maxCode: m }, GROUP);
      expect(part).toBeGreaterThan(0);
      for (const weights of Object.values(WEIGHTS)) {
        const { scale } = quantizeSync({ data: weights, shape: SHAPE }, { nbits, solver });
        const outside = scale.findIndex((own, g) => {
          const w = weights.subarray(g * GROUP, (g + 1) * GROUP);
          const range = Math.max(...w) - Math.min(...w);
          return !(own >= (part * range) / m / 1.001 && own <= range * 1.001);
        });
        expect(outside).toBe(-1);
      }
    }
  });

  test('a whole model holds what one matrix gives', async () => {
    const input = modelFile({ 'x.weight': tensorOf(data, SHAPE) });
    const output = freshPath('out.safetensors');
    await quantizeModel(input, output, { solver, nbits: 3, metaDtype: 'float32', include: ['*'] });
    const model = await openModel(output);
    const want = dequantizeSync(quantizeSync({ data, shape: SHAPE }, { solver, nbits: 3 }));
    expectSameBytes(await (await model.linear('x')).dequantize(), want);
    await model.close();
  });
});

test('lambda and rho out of range are refused', () => {
  const refused = (config: object, message: RegExp) =>
    expect(() => quantizeSync({ data: WEIGHTS.gaussian, shape: SHAPE }, config)).toThrow(message);
  refused({ solver: 'hqs', lambda: -1 }, /Expected lambda to be a number in \[0, 1e6\], or auto, got -1/);
  refused({ solver: 'hqs', lambda: Number.NaN }, /Expected lambda to be a number in \[0, 1e6\], or auto, got NaN/);
  refused({ solver: 'admm', rho: 0 }, /Expected rho to be a number in \[0\.001, 1000\], or auto, got 0/);
  refused({ solver: 'admm', rho: '1' }, /Expected rho to be a number in \[0\.001, 1000\], or auto, got "1"/);
});

test('lambda and rho ask for their solver where none is named', () => {
  expect(resolveQuantConfig({ lambda: 0.1, kappa: 1.2 }).solver).toBe('hqs');
  expect(resolveQuantConfig({ rho: 1 }).solver).toBe('admm');
});

test('lambda and rho beside a solver that does not read them are refused', () => {
  for (const [name, reader] of [
    ['lambda', 'hqs'],
    ['rho', 'admm'],
  ] as const) {
    for (const solver of SOLVERS.filter((other) => other !== reader)) {
      const expected = `Expected ${name} to be left to solver ${reader}, got 0.5.`;
      expect(() => resolveQuantConfig({ solver, [name]: 0.5 })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expected }),
      );
    }
    expect(resolveQuantConfig(resolveQuantConfig({ [name]: 0.5 }))).toMatchObject({ solver: reader, [name]: 0.5 });
  }
  expect(() => resolveQuantConfig({ lambda: 0.5, rho: 0.5 })).toThrow('Expected rho to be left to solver admm');
});

test('a solver takes the place of a penalty that it does not read, and the other way round', () => {
  expect(overlay({ solver: 'hqs', lambda: 0.1, nbits: 3 }, { solver: 'joint' })).toEqual({ solver: 'joint', nbits: 3 });
  expect(overlay({ solver: 'hqs', lambda: 0.1 }, { solver: 'hqs' })).toEqual({ solver: 'hqs', lambda: 0.1 });
  expect(overlay({ solver: 'joint', nbits: 3 }, { rho: 1 })).toEqual({ rho: 1, nbits: 3 });
  expect(overlay({ lambda: 0.1 }, { rho: 1 })).toEqual({ rho: 1 });
  expect(overlay({ lambda: 0.1 }, { nbits: 3 })).toEqual({ lambda: 0.1, nbits: 3 });
  // a scheme's own solver gives way
  expect(resolveOptions({ to: 'awq', lambda: 0.1 }).config).toMatchObject({ solver: 'hqs', lambda: 0.1 });
  const overrides = { '*.down_proj': { solver: 'minmax' } } as const;
  expect(resolveOptions({ lambda: 0.1, overrides }).config.solver).toBe('hqs');
});
