import { describe, expect, test } from 'vitest';
import type { Backend, ImportanceArgs } from '../binding.js';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { groupedQuantizeArgs } from '../lib/compute/arguments.js';
import type { QuantConfig } from '../lib/matrix/config.js';
import { allocateWords, formatFor, packedRows } from '../lib/matrix/format.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { SOLVERS } from '../lib/solvers/solvers.js';
import { gaussian, randomOf } from './support/random.mjs';

// How much the errors of each input feature count, at the seam. test/identity.test.ts holds the backends to the same bytes; here
// they are compared with float64, docs/numerics.md says within what bound.

const SEED = Number(process.env.HQQ_TEST_SEED || Date.now() % 1_000_000_007);
console.log(`importance: HQQ_TEST_SEED=${SEED} repeats these cases`);

const f = Math.fround;
/** Relative, of one rounding to float32. */
const UNIT = 2 ** -24;
/** Relative, of our own power: docs/numerics.md. */
const POW = 2e-6;

interface Matrix {
  /** The grouped matrix. */
  readonly rows: number;
  readonly cols: number;
  readonly axis: 0 | 1;
  readonly weights: Float32Array;
  readonly importance?: ImportanceArgs;
}

function quantize(backend: Backend, matrix: Matrix, given: QuantConfig, threads = 2) {
  const { rows, cols, axis } = matrix;
  const config = resolveQuantConfig({ ...given, axis });
  const format = formatFor(config.nbits);
  const groups = axis === 1 ? rows : cols;
  const packed = allocateWords(format, packedRows(format, rows) * cols);
  const [scale, zero, stats] = [new Float32Array(groups), new Float32Array(groups), new Float64Array(5)];
  backend.run(
    'quantize',
    groupedQuantizeArgs({
      ...{ ...matrix, config, format, threads, dtype: 'float32', metaDtype: 'float32' },
      ...{ packed, scale, zero, stats },
    }),
  );
  return { packed, scale, zero, stats };
}

/** A matrix `[out, features]`, its importance, and how groups of `size` lie in it. */
function randomMatrix(random: () => number, out: number, features: number, size: number, axis: 0 | 1): Matrix {
  const normal = gaussian(random, 1);
  const weights = Float32Array.from({ length: out * features }, () => normal() * 0.05);
  const unit = 10 ** (random() * 60 - 30);
  const values = Float32Array.from({ length: features }, () => (random() < 0.2 ? 0 : unit * Math.exp(3 * normal())));
  const groups = (out * features) / size;
  const [rows, cols] = axis === 1 ? [groups, size] : [size, groups];
  const starts = Int32Array.from({ length: groups }, (_, g) => (axis === 1 ? g * size : g) % features);
  return { rows, cols, axis, weights, importance: { values, starts, stride: axis === 1 ? 1 : groups } };
}

/** The places of a group's weights in the matrix, row-major. */
function placesOf({ rows, cols, axis }: Matrix, group: number): number[] {
  return Array.from({ length: axis === 1 ? cols : rows }, (_, i) => (axis === 1 ? group * cols + i : i * cols + group));
}

/** One update of a group's zero in float64, and how far float32 may be from it. `shrinks`: `1 / beta` and lpNorm. */
function update(w: number[], h: number[], before: number, maxCode: number, shrinks?: readonly [number, number]) {
  const [least, most] = [Math.min(...w), Math.max(...w)];
  const s = f(f(0.5 / f(f(most * 0.5) - f(least * 0.5))) * maxCode);
  let [sum, total, terms, allowed] = [0, 0, 0, 0];
  w.forEach((weight, i) => {
    const scaled = f(weight * s);
    const place = Math.min(Math.max(f(scaled + before), 0), maxCode);
    const code = f(f(place + 12582912) - 12582912);
    let target = scaled;
    if (shrinks) {
      const residual = weight - (code - before) / s;
      const cut = shrinks[0] * Math.abs(residual) ** (shrinks[1] - 1);
      target = (weight - Math.sign(residual) * Math.max(Math.abs(residual) - cut, 0)) * s;
      const ofResidual = 3 * UNIT * Math.abs(code - before) + 2 * UNIT * Math.abs(scaled);
      allowed +=
        h[i]! * (2 * ofResidual + 1.5 * POW * Math.min(cut, Math.abs(residual)) * s + 3 * UNIT * Math.abs(target));
    }
    sum += h[i]! * (code - target);
    total += h[i]!;
    terms += h[i]! * Math.abs(code - target);
  });
  const zero = sum / total;
  const roundings = 2 * Math.ceil(w.length / 16) + 10;
  return { s, zero, bound: UNIT * ((roundings * terms) / total + Math.abs(zero)) + allowed / total };
}

describe.each(availableBackends())('%s', (name) => {
  const backend = openBackend(name);

  test.each([
    ['without shrinkage', { beta: 10, lpNorm: 0.7 }],
    ['with shrinkage', { beta: 1e4, lpNorm: 0.7 }],
    ['with a soft threshold', { beta: 1e3, lpNorm: 1 }],
  ])('each update of a zero is the weighted mean, %s', (_, { beta, lpNorm }) => {
    const random = randomOf(SEED);
    // Groups of a row, across rows, and columns; whole vectors and not.
    for (const [out, features, size, axis] of [
      [6, 64, 32, 1],
      [6, 40, 24, 1],
      [8, 33, 11, 1],
      [24, 40, 24, 0],
      [20, 33, 10, 0],
    ] as const) {
      const matrix = randomMatrix(random, out, features, size, axis);
      for (const nbits of [8, 4, 2] as const) {
        const maxCode = 2 ** nbits - 1;
        let before = quantize(backend, matrix, { nbits, solver: 'minmax' }).zero;
        for (let iterations = 1; iterations <= 3; iterations++) {
          const { scale, zero } = quantize(backend, matrix, { nbits, solver: 'hqq', beta, lpNorm, iterations });
          zero.forEach((got, group) => {
            const places = placesOf(matrix, group);
            const h = places.map((place) => matrix.importance!.values[place % features]!);
            if (new Set(h).size === 1) return;
            const w = places.map((place) => matrix.weights[place]!);
            const shrinks = beta === 10 ? undefined : ([f(1 / beta), lpNorm] as const);
            const want = update(w, h, before[group]!, maxCode, shrinks);
            expect(scale[group]).toBe(f(1 / want.s));
            const context = `HQQ_TEST_SEED=${SEED}: ${nbits} bits, group ${group} of ${size}, axis ${axis}, iteration ${iterations}`;
            expect(Math.abs(got - want.zero) / want.bound, context).toBeLessThanOrEqual(1);
          });
          before = zero;
        }
      }
    }
  });

  test('the same importance for all weights of a group is none, to the bit', () => {
    const random = randomOf(SEED + 1);
    for (const axis of [1, 0] as const) {
      const { importance, ...plain } = randomMatrix(random, 40, 48, 40, axis);
      for (const value of [1, 0, 0.37, 1e-40, 3e38]) {
        const equal = { ...plain, importance: { ...importance!, values: new Float32Array(48).fill(value) } };
        const joint = { nbits: 3, solver: 'joint' } as const;
        for (const config of [
          ...([
            { nbits: 4, solver: 'hqq' },
            { nbits: 2, solver: 'hqq', beta: 1e4 },
            { nbits: 3, solver: 'minmax' },
            joint,
          ] as const),
          ...([
            { ...joint, lpNorm: 0.7 },
            { ...joint, zeroPoint: 'integer' },
          ] as const),
          { ...joint, zeroPoint: 'symmetric' } as const,
        ]) {
          expect(quantize(backend, equal, config)).toEqual(quantize(backend, plain, config));
        }
      }
    }
  });

  test('minmax has no use for it; others spend their errors where they count least', () => {
    const matrix = randomMatrix(randomOf(SEED + 2), 64, 64, 64, 1);
    const { importance, ...plain } = matrix;
    const values = Float32Array.from({ length: 64 }, (_, i) => (i < 8 ? 100 : 1));
    const weighted = { ...plain, importance: { ...importance!, values } };
    expect(quantize(backend, weighted, { solver: 'minmax' })).toEqual(quantize(backend, plain, { solver: 'minmax' }));
    const errorOf = ({ scale, zero, packed }: ReturnType<typeof quantize>) =>
      plain.weights.reduce((sum, w, i) => {
        const [group, half] = [Math.floor(i / 64), plain.rows / 2];
        const word = packed[(group % half) * 64 + (i % 64)]!;
        const code = group < half ? word >> 4 : word & 15;
        return sum + values[i % 64]! * (w - (code - zero[group]!) * scale[group]!) ** 2;
      }, 0);
    const reference = { solver: 'hqq' } as const;
    const joint = { solver: 'joint' } as const;
    for (const config of [
      reference,
      joint,
      { ...joint, lpNorm: 0.7 },
      ...(['integer', 'symmetric'] as const).map((zeroPoint) => ({ ...joint, zeroPoint })),
    ]) {
      expect(errorOf(quantize(backend, weighted, config))).toBeLessThan(errorOf(quantize(backend, plain, config)));
    }
    const [hqq, fitted] = [reference, joint].map((config) => errorOf(quantize(backend, weighted, config)));
    expect(fitted).toBeLessThan(0.95 * hqq!);
  });

  test('zeros are finite where residuals are more than a float holds', () => {
    const matrix = randomMatrix(randomOf(SEED + 4), 33, 15, 15, 1);
    const { rows, cols, axis } = matrix;
    const random = randomOf(SEED + 5);
    for (const scaleOfWeights of [3e38, 1e38, 1e36]) {
      const weights = matrix.weights.map(() => (random() * 2 - 1) * scaleOfWeights);
      for (const given of [{ importance: matrix.importance! }, {}]) {
        for (const solver of SOLVERS) {
          const { scale, zero } = quantize(
            backend,
            { rows, cols, axis, weights, ...given },
            { nbits: 1, solver, beta: 100 },
          );
          expect([solver, scaleOfWeights, [...scale, ...zero].every(Number.isFinite)]).toEqual([
            solver,
            scaleOfWeights,
            true,
          ]);
        }
      }
    }
  });

  test.each([1, 0] as const)(
    'a chunk of groups, which may start anywhere in a row, gives what the whole matrix gives: axis %i',
    (axis) => {
      const whole = randomMatrix(randomOf(SEED + 3), 12, 40, 16, axis);
      const { values, starts, stride } = whole.importance!;
      const all = quantize(backend, whole, { nbits: 3 });
      const [first, count] = [7, 9];
      const places = Array.from({ length: count }, (_, g) => placesOf(whole, first + g));
      const weights = new Float32Array(count * 16);
      places.forEach((group, g) =>
        group.forEach((place, i) => (weights[axis === 1 ? g * 16 + i : i * count + g] = whole.weights[place]!)),
      );
      const [rows, cols] = axis === 1 ? [count, 16] : [16, count];
      const importance = { values, starts: starts.subarray(first, first + count), stride };
      for (const threads of [1, 2, 7]) {
        const chunk = quantize(backend, { rows, cols, axis, weights, importance }, { nbits: 3 }, threads);
        expect(chunk.scale).toEqual(all.scale.subarray(first, first + count));
        expect(chunk.zero).toEqual(all.zero.subarray(first, first + count));
      }
    },
  );
});
