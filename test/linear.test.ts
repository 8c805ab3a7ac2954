import { afterAll, describe, expect, test } from 'vitest';
import type { Backend, LinearArgs } from '../binding.js';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { dequantizeSync, quantizeSync } from '../lib/compute/quantize.js';
import { NBITS, type NBits } from '../lib/matrix/config.js';
import { INPUT_SEGMENT } from '../lib/matrix/constants.js';
import { formatFor, formatNamed, holdsRows, packedRows } from '../lib/matrix/format.js';
import { geometryOf } from '../lib/matrix/geometry.js';
import { fitsPanels, panelSizes } from '../lib/matrix/panels.js';
import type { QuantizedTensor } from '../lib/matrix/weight.js';
import { expectSameBytes } from './support/bytes.js';
import { seededRandom } from './support/random.mjs';

/** Of the sum of |terms|: what float32 products may differ from exact ones. Stated in docs/numerics.md. */
const FLOAT_BOUND = 3e-6;
/** Of the sum of |terms|: rounding x to 255 levels a group moves each by half a level at most, 1/254 of the largest. */
const INT8_BOUND = 1 / 254;

const random = seededRandom();
const backends = availableBackends();
const reference = openBackend('js');

function normal(length: number, std = 1, mean = 0): Float32Array {
  const uniform = () => random() - 0.5;
  return Float32Array.from(
    { length },
    () => (uniform() + uniform() + uniform() + uniform()) * Math.sqrt(3) * std + mean,
  );
}

interface Case {
  readonly nbits: NBits;
  readonly axis: 0 | 1;
  readonly groupSize: number;
  readonly shape: readonly [number, number];
}

/** Every width on both axes, on shapes that are no multiple of anything, in groups that fuse and groups that do not. */
function cases(): Case[] {
  const shapes: [number, number, number][] = [
    [48, 64, 64],
    [40, 128, 32],
    [17, 96, 48],
    [33, 256, 128],
    [8, 512, 256],
    [64, 48, 16],
    [23, 65, 65],
    [56, 100, 25],
    [16, 300, 150],
    [30, 40, 80],
    [24, 36, 24],
    [1, 64, 64],
    [160, 384, 384],
  ];
  const all: Case[] = [];
  for (const nbits of NBITS) {
    for (const axis of [0, 1] as const) {
      for (const [out, cols, groupSize] of shapes) {
        const config = { nbits, axis, groupSize };
        if ((out * cols) % groupSize !== 0) continue;
        if (holdsRows(formatFor(nbits), geometryOf([out, cols], config).rows))
          all.push({ ...config, shape: [out, cols] });
      }
    }
  }
  return all;
}

function tensorOf({ nbits, axis, groupSize, shape }: Case): QuantizedTensor {
  const data = normal(shape[0] * shape[1], 0.05, 0.01);
  return quantizeSync({ data, dtype: 'float32', shape }, { nbits, axis, groupSize, solver: 'minmax' });
}

const isFused = (q: QuantizedTensor) => fitsPanels(formatNamed(q.packing)!.id, q.axis, q.shape[1], q.groupSize);

function layOut(backend: Backend, q: QuantizedTensor, threads = 1) {
  const format = formatNamed(q.packing)!;
  const [outFeatures, inFeatures] = q.shape;
  const sizes = panelSizes(format.id, outFeatures, inFeatures, q.groupSize);
  const panels = {
    shape: Int32Array.of(outFeatures, inFeatures, q.groupSize, format.id),
    codes: new Uint8Array(sizes.codes).fill(0xee),
    meta: new Float32Array(sizes.meta),
  };
  const step = packedRows(format, (outFeatures * inFeatures) / q.groupSize);
  backend.run('layOut', { ...panels, step, packed: q.packed, scale: q.scale, zero: q.zero, threads });
  return panels;
}

const laidOut = new WeakMap<QuantizedTensor, Map<Backend, ReturnType<typeof layOut>>>();

/** The panels of a tensor, laid out once by each backend. */
function panelsOf(backend: Backend, q: QuantizedTensor) {
  const known = laidOut.get(q) ?? new Map<Backend, ReturnType<typeof layOut>>();
  laidOut.set(q, known);
  const panels = known.get(backend) ?? layOut(backend, q);
  known.set(backend, panels);
  return panels;
}

interface Call {
  readonly int8?: boolean;
  readonly threads?: number;
  readonly bias?: Float32Array;
}

function multiply(
  backend: Backend,
  q: QuantizedTensor,
  x: Float32Array,
  { int8 = false, threads = 1, bias }: Call = {},
): Float32Array {
  const [outFeatures, inFeatures] = q.shape;
  const out = new Float32Array((x.length / inFeatures) * outFeatures).fill(NaN);
  const shared = { bias: bias ?? new Float32Array(0), out };
  if (isFused(q)) {
    const layers: LinearArgs['layers'] = [{ ...panelsOf(backend, q), ...shared }];
    backend.run('linear', { layers, x, int8, threads });
  } else {
    const format = formatNamed(q.packing)!;
    const { rows, cols } = geometryOf(q.shape, q);
    const { packed, axis, scale, zero } = q;
    const grid = { packed, format: format.id, rows, cols, step: packedRows(format, rows), axis, scale, zero };
    backend.run('linearTiled', { ...grid, inFeatures, outFeatures, x, threads, ...shared });
  }
  return out;
}

/** y and the sum of |terms|, in float64, from what the codes stand for. */
function exact(q: QuantizedTensor, weights: Float32Array, x: Float32Array, bias?: Float32Array) {
  const [out, cols] = q.shape;
  const batch = x.length / cols;
  const y = new Float64Array(batch * out);
  const terms = new Float64Array(batch * out);
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < out; o++) {
      let sum = bias?.[o] ?? 0;
      let size = Math.abs(sum);
      for (let i = 0; i < cols; i++) {
        const term = weights[o * cols + i]! * x[b * cols + i]!;
        sum += term;
        size += Math.abs(term);
      }
      y[b * out + o] = sum;
      terms[b * out + o] = size;
    }
  }
  return { y, terms };
}

function worst(got: Float32Array, { y, terms }: ReturnType<typeof exact>): number {
  return got.reduce(
    (most, value, i) => Math.max(most, Number.isNaN(value) ? Infinity : Math.abs(value - y[i]!) / terms[i]!),
    0,
  );
}

/** For rounded x, |terms| are those of the largest |x| of each segment of a group: the bound is on that. */
function roundedTerms(q: QuantizedTensor, weights: Float32Array, x: Float32Array): Float64Array {
  const [out, cols] = q.shape;
  const batch = x.length / cols;
  const terms = new Float64Array(batch * out);
  for (let b = 0; b < batch; b++) {
    for (let first = 0, end = 0; first < cols; first = end) {
      const group = first - (first % q.groupSize);
      end = Math.min(first + INPUT_SEGMENT, group + q.groupSize);
      const most = x.subarray(b * cols + first, b * cols + end).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      for (let o = 0; o < out; o++) {
        for (let i = first; i < end; i++) terms[b * out + o]! += Math.abs(weights[o * cols + i]!) * most;
      }
    }
  }
  return terms;
}

/** What a case multiplies, and what should come of it: the same for every backend. */
function prepare(c: Case) {
  const q = tensorOf(c);
  const weights = dequantizeSync(q);
  const [out, cols] = c.shape;
  const batches = [1, 2, 3, 7, 66].map((batch) => {
    const x = normal(batch * cols, 1, batch === 3 ? 2 : 0);
    const options: Call = batch === 2 ? {} : { bias: normal(out) };
    const want = exact(q, weights, x, options.bias);
    const rounded = isFused(q) && {
      room: roundedTerms(q, weights, x),
      want: multiply(reference, q, x, { ...options, int8: true }),
    };
    return { row: batch - 1, x, options, want, rounded };
  });
  return { q, batches };
}

describe.each(cases())('products from codes: $nbits bits, axis $axis, groups of $groupSize, $shape', (c) => {
  let prepared: ReturnType<typeof prepare> | undefined;
  afterAll(() => {
    prepared = undefined;
  });

  test.each(backends)('%s', (name) => {
    const backend = openBackend(name);
    prepared ??= prepare(c);
    const { q, batches } = prepared;
    const [out, cols] = c.shape;
    for (const { row, x, options, want, rounded } of batches) {
      const got = multiply(backend, q, x, options);
      expect(worst(got, want)).toBeLessThanOrEqual(FLOAT_BOUND);
      // Other threads, same bits; a row alone, same bits.
      expectSameBytes(multiply(backend, q, x, { ...options, threads: 7 }), got);
      expectSameBytes(multiply(backend, q, x.slice(row * cols), options), got.slice(row * out));

      if (!rounded) continue;
      const coarse = multiply(backend, q, x, { ...options, int8: true });
      const errors = coarse.map(
        (value, i) => Math.abs(value - want.y[i]!) / (rounded.room[i]! * INT8_BOUND + want.terms[i]! * FLOAT_BOUND),
      );
      expect(Math.max(...errors)).toBeLessThanOrEqual(1);
      expectSameBytes(multiply(backend, q, x, { ...options, int8: true, threads: 2 }), coarse);
      expectSameBytes(multiply(backend, q, x.slice(row * cols), { ...options, int8: true }), coarse.slice(row * out));
      expectSameBytes(rounded.want, coarse);
    }
  });
});

describe.each(backends)('products from codes: %s', (name) => {
  const backend = openBackend(name);

  test('panels are the same bytes everywhere, and give the weights back', () => {
    for (const c of cases()) {
      const q = tensorOf(c);
      if (!isFused(q)) continue;
      const panels = layOut(backend, q, 3);
      const expected = layOut(reference, q);
      expectSameBytes(panels.codes, expected.codes);
      expectSameBytes(panels.meta, expected.meta);
      const out = new Float32Array(q.shape[0] * q.shape[1]);
      backend.run('expand', { ...panels, out, threads: 2 });
      expectSameBytes(out, dequantizeSync(q));
    }
  });

  test.each([false, true])('x that is zero, tiny, huge or not finite (int8: %s)', (int8) => {
    const q = tensorOf({ nbits: 4, axis: 1, groupSize: 64, shape: [32, 128] });
    const weights = dequantizeSync(q);
    const x = normal(128);
    expect(
      multiply(
        backend,
        q,
        x.map(() => 0),
        { int8 },
      ).every((y) => y === 0),
    ).toBe(true);
    for (const factor of [1e-25, 1e25]) {
      const scaled = x.map((value) => value * factor);
      const bound = int8 ? 0.05 : FLOAT_BOUND;
      expect(worst(multiply(backend, q, scaled, { int8 }), exact(q, weights, scaled))).toBeLessThanOrEqual(bound);
    }
    for (const bad of [NaN, Infinity, -Infinity]) {
      const y = multiply(backend, q, x.with(70, bad), { int8 });
      expect(y.some((value) => Number.isFinite(value))).toBe(false);
    }
  });

  test('x that picks one weight gets it, however near its code is to zero', () => {
    for (const nbits of NBITS) {
      const q = tensorOf({ nbits, axis: 1, groupSize: 64, shape: [32, 128] });
      const weights = dequantizeSync(q);
      const x = new Float32Array(128 * 128);
      for (let i = 0; i < 128; i++) x[i * 128 + i] = 1 + random();
      expect(worst(multiply(backend, q, x), exact(q, weights, x))).toBeLessThanOrEqual(FLOAT_BOUND);
      const last = x.slice(127 * 128);
      expect(worst(multiply(backend, q, last), exact(q, weights, last))).toBeLessThanOrEqual(FLOAT_BOUND);
    }
  });

  test.each([false, true])('calls that begin while another is under way leave it alone (int8: %s)', async (int8) => {
    const q = tensorOf({ nbits: 4, axis: 1, groupSize: 64, shape: [256, 1024] });
    const panels = layOut(backend, q);
    const inputs = Array.from({ length: 6 }, () => normal(8 * 1024));
    const call = (x: Float32Array) => {
      const out = new Float32Array(8 * 256);
      return { out, args: { layers: [{ ...panels, bias: new Float32Array(0), out }], x, int8, threads: 1 } };
    };
    const calls = inputs.map(call);
    const expected = inputs.map(call);
    for (const { args } of expected) backend.run('linear', args);
    let left = calls.length;
    for (const { args } of calls) void backend.start('linear', args).promise.then(() => left--);
    for (let i = 0; left > 0; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      backend.run('linear', call(inputs[i % inputs.length]!).args);
    }
    calls.forEach(({ out }, i) => expectSameBytes(out, expected[i]!.out));
  });

  test('codes at both ends of their range, and x at both of its: integers do not saturate', () => {
    for (const nbits of NBITS) {
      const data = Float32Array.from({ length: 16 * 256 }, (_, i) =>
        Math.floor(i / 256) % 3 === 0 ? (i % 2 ? 1 : -1) : (i >> 3) % 2 ? 1 : -1,
      );
      const q = quantizeSync({ data, dtype: 'float32', shape: [16, 256] }, { nbits, groupSize: 256, solver: 'minmax' });
      const x = Float32Array.from({ length: 256 }, (_, i) => (i % 2 ? 1 : -1));
      for (const input of [x, x.map((v) => -v), x.map(() => 1), x.map(() => -1)]) {
        const got = multiply(backend, q, input, { int8: true });
        expectSameBytes(got, multiply(reference, q, input, { int8: true }));
        expect(worst(got, exact(q, dequantizeSync(q), input))).toBeLessThanOrEqual(1e-5);
      }
    }
  });
});
