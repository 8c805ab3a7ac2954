import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { quantizeSync } from '../lib/compute/quantize.js';
import { unpack } from '../lib/index.js';
import { highestCode, type NBits, type QuantConfig } from '../lib/matrix/config.js';
import { leastJointScale } from '../lib/solvers/joint.js';
import { gaussian, randomOf, studentT } from './support/random.mjs';

// Solver joint against an oracle in float64 that shares nothing with it: a dense search over ranges, each to its fixed point.
// test/identity.test.ts holds every backend to the same bytes, so that one backend is enough here.

const GROUP = 64;
const GROUPS = 1000;

interface Fit {
  readonly scale: number;
  readonly zero: number;
  readonly error: number;
}

/** Codes of `w`, and least squares of `w ~ scale * (code - zero)` to them. */
function refit(w: Float64Array, at: Fit, m: number): Fit | undefined {
  const n = w.length;
  let [sumQ, sumW, sumQQ, sumQW, sumWW] = [0, 0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    const q = Math.min(Math.max(Math.round(w[i]! / at.scale + at.zero), 0), m);
    sumQ += q;
    sumW += w[i]!;
    sumQQ += q * q;
    sumQW += q * w[i]!;
    sumWW += w[i]! * w[i]!;
  }
  const spread = sumQQ - (sumQ * sumQ) / n;
  const cov = sumQW - (sumQ * sumW) / n;
  if (!(spread > 0 && cov > 0)) return undefined;
  const scale = cov / spread;
  return { scale, zero: sumQ / n - sumW / n / scale, error: sumWW - (sumW * sumW) / n - cov * scale };
}

function toFixedPoint(w: Float64Array, start: Fit, m: number): Fit {
  let at = start;
  for (let i = 0; i < 50; i++) {
    const next = refit(w, at, m);
    if (!next || !(next.error < at.error)) break;
    at = next;
  }
  return at;
}

/** The best of 9 x 9 ranges. */
function densest(w: Float64Array, m: number): number {
  const [least, most] = [Math.min(...w), Math.max(...w)];
  const cuts = Array.from({ length: 9 }, (_, i) => (i - 1) * 0.06 * (most - least));
  let best = Infinity;
  for (const low of cuts) {
    for (const high of cuts) {
      const scale = (most - high - least - low) / m;
      if (!(scale > 0)) continue;
      best = Math.min(best, toFixedPoint(w, { scale, zero: -(least + low) / scale, error: Infinity }, m).error);
    }
  }
  return best;
}

/** The squared error of each group, of what the result stands for. */
function errors(data: Float32Array, config: QuantConfig, groupSize = GROUP): Float64Array {
  const q = quantizeSync(
    { data, dtype: 'float32', shape: [data.length / groupSize, groupSize] },
    { ...config, groupSize },
  );
  const codes = unpack(q);
  const sums = new Float64Array(data.length / groupSize);
  for (let i = 0; i < data.length; i++) {
    const g = Math.floor(i / groupSize);
    sums[g]! += (data[i]! - (codes[i]! - q.zero[g]!) * q.scale[g]!) ** 2;
  }
  return sums;
}

const sum = (values: Float64Array) => values.reduce((a, b) => a + b, 0);

/** Weights of the model that ships with the repository. */
function realWeights(count: number): Float32Array {
  const file = readFileSync(new URL('../examples/models/llama-2.3m-books/model.safetensors', import.meta.url));
  const header = Number(file.readBigUInt64LE(0));
  const entries = JSON.parse(file.toString('utf8', 8, 8 + header)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const { dtype, data_offsets } = entries['model.layers.0.mlp.gate_proj.weight']!;
  const bytes = file.subarray(8 + header + data_offsets[0], 8 + header + data_offsets[1]);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === 'F32') return Float32Array.from({ length: count }, (_, i) => view.getFloat32(4 * i, true));
  const wide = Uint32Array.from({ length: count }, (_, i) => view.getUint16(2 * i, true) << 16); // BF16
  return new Float32Array(wide.buffer);
}

const WEIGHTS = {
  gaussian: Float32Array.from({ length: GROUPS * GROUP }, gaussian(randomOf(11), 0.02)),
  'student-t(5)': Float32Array.from({ length: GROUPS * GROUP }, studentT(randomOf(12), 5, 0.02)),
  real: realWeights(GROUPS * GROUP),
} as const;
const BARS: Readonly<Record<keyof typeof WEIGHTS, Readonly<Record<number, number>>>> = {
  gaussian: { 4: 0.915, 3: 0.815, 2: 0.567 },
  'student-t(5)': { 4: 0.92, 3: 0.84, 2: 0.62 },
  real: { 4: 0.92, 3: 0.84, 2: 0.62 },
};

describe.each(Object.keys(WEIGHTS) as (keyof typeof WEIGHTS)[])('%s weights', (name) => {
  const data = WEIGHTS[name];
  test.each([4, 3, 2] as const)('%s bits: joint against hqq, minmax and a dense search', (nbits) => {
    const joint = errors(data, { nbits, solver: 'joint' });
    expect(sum(joint)).toBeLessThanOrEqual(BARS[name][nbits]! * sum(errors(data, { nbits, solver: 'hqq' })));
    const range = errors(data, { nbits, solver: 'minmax' });
    expect(joint.findIndex((error, g) => !(error <= range[g]! * (1 + 1e-5)))).toBe(-1);
    // The search takes most of the time: every third group.
    let [found, dense] = [0, 0];
    for (let g = 0; g < GROUPS; g += 3) {
      found += joint[g]!;
      dense += densest(Float64Array.from(data.subarray(g * GROUP, (g + 1) * GROUP)), highestCode(nbits));
    }
    expect(found).toBeLessThanOrEqual(1.03 * dense);
  });

  test.each([8, 4, 3, 2, 1.58, 1] as const)(
    '%s bits: the squares never rise from one iteration to the next',
    (nbits) => {
      for (const zeroPoint of ['float', 'symmetric', 'integer'] as const) {
        let before: Float64Array | undefined;
        for (let iterations = 2; iterations <= 12; iterations++) {
          const now = errors(data, { nbits, solver: 'joint', zeroPoint, iterations });
          if (before) expect(now.findIndex((error, g) => !(error <= before![g]! * (1 + 1e-4) + 1e-12))).toBe(-1);
          before = now;
        }
      }
    },
  );

  test.each([4, 3, 2] as const)('%s bits: integer and symmetric zeros', (nbits) => {
    const shape = [GROUPS, GROUP] as const;
    const run = (zeroPoint: 'integer' | 'symmetric') =>
      quantizeSync({ data, dtype: 'float32', shape }, { nbits, solver: 'joint', zeroPoint });
    const [integer, symmetric] = [run('integer'), run('symmetric')];
    const codes = new Set(Array.from({ length: highestCode(nbits) + 1 }, (_, i) => i));
    expect([...integer.zero].every((zero) => codes.has(zero))).toBe(true);
    expect(new Set(symmetric.zero)).toEqual(new Set([2 ** (nbits - 1)]));
    expect(integer.stats.relativeError).toBeLessThan(
      quantizeSync({ data, dtype: 'float32', shape }, { nbits, solver: 'minmax', zeroPoint: 'integer' }).stats
        .relativeError,
    );
    if (name === 'gaussian') {
      // AutoRound's NeUQI search on gaussian weights, and 0.3 %
      const peers = { 4: [0.0871, 0.0898], 3: [0.1755, 0.176], 2: [0.3509, 0.3509] }[nbits];
      const sample = Math.sqrt(sum(Float64Array.from(data, (w) => w * w)) / data.length) / 0.02;
      expect(sample).toBeCloseTo(1, 1);
      expect(integer.stats.relativeError).toBeLessThanOrEqual(peers[0]! * 1.01); // of 64,000 weights, not of millions
      expect(symmetric.stats.relativeError).toBeLessThanOrEqual(peers[1]! * 1.01);
    }
  });

  test('no scale is below what the bound says, from which the type of scales is chosen', () => {
    for (const nbits of [8, 4, 3, 2, 1.58] as const satisfies readonly NBits[]) {
      const maxCode = highestCode(nbits);
      const options = { lpNorm: 2, beta: 10, kappa: 1, iterations: 20, zeroPoint: 'float', maxCode } as const;
      const part = leastJointScale(options, GROUP);
      expect(part).toBeGreaterThan(0);
      const shape = [GROUPS, GROUP] as const;
      const { scale } = quantizeSync({ data, dtype: 'float32', shape }, { nbits, solver: 'joint' });
      const outside: number[] = [];
      for (let g = 0; g < GROUPS; g++) {
        const w = data.subarray(g * GROUP, (g + 1) * GROUP);
        const range = Math.max(...w) - Math.min(...w);
        if (!(scale[g]! >= (part * range) / maxCode / 1.001 && scale[g]! <= range * 1.001)) outside.push(g);
      }
      expect(outside).toEqual([]);
    }
  });
});

test.each(['float16', 'bfloat16'] as const)(
  'scaleDtype %s: scales are its numbers, and codes are chosen for them',
  (scaleDtype) => {
    const data = WEIGHTS.gaussian;
    const shape = [GROUPS, GROUP] as const;
    for (const solver of ['hqq', 'minmax', 'joint'] as const) {
      const config = { nbits: 4, solver } as const;
      const rounded = quantizeSync({ data, dtype: 'float32', shape }, { ...config, scaleDtype });
      const lost = scaleDtype === 'float16' ? 0x1fff : 0xffff;
      const bits = new Uint32Array(rounded.scale.buffer);
      expect(bits.every((b) => (b & lost) === 0)).toBe(true);
      const free = quantizeSync({ data, dtype: 'float32', shape }, config);
      expect(rounded.stats.relativeError).toBeLessThan(
        free.stats.relativeError * (scaleDtype === 'float16' ? 1.001 : 1.01),
      );
    }
  },
);

test('scales that scaleDtype does not hold are refused', () => {
  const weight = (size: number) => ({
    data: WEIGHTS.gaussian.subarray(0, GROUP).map((w) => w * size),
    dtype: 'float32' as const,
    shape: [1, GROUP] as const,
  });
  for (const solver of ['minmax', 'joint'] as const) {
    for (const size of [1e-8, 1e12]) {
      expect(() => quantizeSync(weight(size), { solver, scaleDtype: 'float16', groupSize: GROUP, nbits: 8 })).toThrow(
        /whose scale is .*, which float16 does not hold\. Use scaleDtype float32 or bfloat16/,
      );
      quantizeSync(weight(size), { solver, scaleDtype: 'bfloat16', groupSize: GROUP, nbits: 8 });
    }
  }
});

test('what a solver cannot do is refused', () => {
  const weight = { data: WEIGHTS.gaussian.subarray(0, GROUP), dtype: 'float32', shape: [1, GROUP] } as const;
  const refused = (config: QuantConfig, message: RegExp) =>
    expect(() => quantizeSync(weight, { ...config, nbits: 8 })).toThrow(message);
  refused(
    { zeroPoint: 'integer', solver: 'hqq' },
    /Expected zeroPoint to be float for solver hqq, got "integer"; .*minmax, joint/,
  );
  refused({ zeroPoint: 'symmetric', roundZero: true, solver: 'joint' }, /Expected roundZero to be false/);
  refused({ lpNorm: 2, solver: 'hqq' }, /Expected lpNorm to be in \(0, 1\] for solver hqq, got 2/);
  refused({ lpNorm: 1.5, solver: 'joint' }, /Expected lpNorm to be a number in \(0, 1\], or 2/);
});

test('joint is the default, unless options of the reference ask for its solver', () => {
  const weight = { data: WEIGHTS.gaussian.subarray(0, 8 * GROUP), shape: [8, GROUP] } as const;
  const expectSolver = (config: QuantConfig, solver: 'hqq' | 'joint') =>
    expect(quantizeSync(weight, config)).toEqual(quantizeSync(weight, { ...config, solver }));
  expect(quantizeSync(weight)).toEqual(quantizeSync(weight, { solver: 'joint', lpNorm: 2 }));
  for (const config of [{ beta: 5 }, { kappa: 1.01 }, { lpNorm: 0.7 }, { roundZero: true }, { referenceGuards: true }])
    expectSolver(config, 'hqq');
  for (const config of [
    { beta: 5, lpNorm: 2 },
    { lpNorm: 0.7, zeroPoint: 'integer' },
  ] as const)
    expectSolver(config, 'joint');
  expectSolver({ roundZero: false, referenceGuards: false, iterations: 5 }, 'joint');
  for (const solver of ['joint', 'minmax'] as const) quantizeSync(weight, { beta: 5, roundZero: true, solver });
});

test('a group ends where it ends alone, whatever stands beside it', () => {
  const config = { nbits: 1, solver: 'joint', lpNorm: 1, zeroPoint: 'symmetric', groupSize: 7 } as const;
  const options = { ...config, beta: 100, kappa: 1, iterations: 20, referenceGuards: true };
  const next = randomOf(8);
  // The first stays at one inverse with two scales in turn: what goes on beside it must not decide which it ends with.
  const known = [0, 0.5, -2, -3.25, -1, 0.25, 2.5];
  const groups = [known, ...Array.from({ length: 400 }, () => known.map(() => Math.floor(next() * 33 - 16) * 0.25))];
  const together = quantizeSync({ data: Float32Array.from(groups.flat()), shape: [groups.length, 7] }, options);
  groups.forEach((group, g) => {
    const alone = quantizeSync({ data: Float32Array.from(group), shape: [1, 7] }, options);
    expect([g, together.scale[g]]).toEqual([g, alone.scale[0]]);
  });
});
