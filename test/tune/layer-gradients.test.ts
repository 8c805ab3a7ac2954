import { describe, expect, test } from 'vitest';
import type { Operations } from '../../binding.js';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import '../../lib/runtime/encoder/encoder-block.js'; // provides these operations in JavaScript, as the next does
import '../../lib/tune/tape/differentiate.js';
import { expectSameBytes } from '../support/bytes.js';
import { gaussian, randomOf } from '../support/random.mjs';

const BACKENDS = availableBackends();
/** Around every vector width, and past a tile of them. */
const SIZES = [1, 2, 7, 15, 16, 17, 33, 127];
/** Of float32, relative to the largest of an array's gradients: a few dozen roundings, and what powers are off by. */
const NEAR = 2 ** -24 * 100;

const random = randomOf(11);
const floats = (length: number, size = 1) => Float32Array.from({ length }, gaussian(random, size));

/** Runs an operation on copies of the arrays that it writes, which it returns, on each number of threads: the bits must not depend on it. */
function run<K extends keyof Operations>(
  name: string,
  operation: K,
  args: Omit<Operations[K], 'threads'>,
  written: readonly (keyof Operations[K])[],
): Float32Array[] {
  const outs = [1, 2, 7].map((threads) => {
    const copies = Object.fromEntries(
      written.map((key) => [key, (args as Record<string, Float32Array>)[key as string]!.slice()]),
    );
    openBackend(name).run(operation, { ...args, ...copies, threads } as unknown as Operations[K]);
    return Object.values(copies);
  });
  for (const out of outs) for (const [i, array] of out.entries()) expectSameBytes(array, outs[0]![i]!);
  return outs[0]!;
}

type Numbers = Float64Array;

interface AttentionShape
  extends Pick<Operations['attention'], 'rows' | 'heads' | 'kvHeads' | 'headDim' | 'window' | 'softcap'> {
  readonly causal?: boolean;
}

/** The gradient of the sum of `gradient * f(x)` by each number of x: differences in float64, at four places. */
function differences(f: (x: Numbers) => Numbers, x: Float32Array, gradient: Float32Array): Numbers {
  const at = Float64Array.from(x);
  const loss = () => f(at).reduce((sum, value, i) => sum + value * gradient[i]!, 0);
  return at.map((value, i) => {
    const step = 1e-3 * Math.max(1, Math.abs(value));
    const slope = (by: number) => {
      at[i] = value + by;
      const above = loss();
      at[i] = value - by;
      const below = loss();
      at[i] = value;
      return (above - below) / (2 * by);
    };
    return (4 * slope(step / 2) - slope(step)) / 3;
  });
}

function expectNear(got: Float32Array, want: Numbers, near = NEAR): void {
  const most = Math.max(0.1, ...want.map(Math.abs)); // of inputs around 1
  const wrong = got.findIndex((value, i) => !(Math.abs(value - want[i]!) <= near * most + 1e-30));
  if (wrong >= 0) expect.fail(`element ${wrong}: ${got[wrong]}, not ${want[wrong]} within ${near} of ${most}`);
}

const cases = new Map<string, unknown>();
/** What `make` gives, once: differences take longer than all else, and serve every backend. */
function once<T>(key: string, make: () => T): T {
  if (!cases.has(key)) cases.set(key, make());
  return cases.get(key) as T;
}

const blank = (like: Float32Array) => new Float32Array(like.length).fill(NaN);

describe.each(BACKENDS)('%s', (name) => {
  test.each(SIZES)('rmsNormGradient of %i columns', (cols) => {
    const [rows, epsilon] = [3, 1e-5];
    const { x, weight, gradient, before, want } = once(`norm ${cols}`, () => {
      const [x, weight, gradient] = [floats(rows * cols), floats(cols), floats(rows * cols)];
      const norm = (of: Numbers) => {
        const means = Array.from({ length: rows }, (_, r) => {
          return of.subarray(r * cols, (r + 1) * cols).reduce((sum, v) => sum + v * v, 0) / cols;
        });
        return of.map((v, i) => (v / Math.sqrt(means[Math.floor(i / cols)]! + epsilon)) * weight[i % cols]!);
      };
      return { x, weight, gradient, before: floats(rows * cols), want: differences(norm, x, gradient) };
    });
    const args = { rows, cols, epsilon, x, weight, gradient };
    // The gradient of one column is what epsilon leaves of it: some 1e-5 of the terms whose difference it is.
    const terms = Math.max(...want.map(Math.abs), ...gradient.map((g, i) => Math.abs((g * weight[i % cols]!) / x[i]!)));
    const [written] = run(name, 'rmsNormGradient', { ...args, xGradient: blank(x), adds: false }, ['xGradient']);
    expectNear(written!, want, NEAR * Math.max(1, terms));
    const [added] = run(name, 'rmsNormGradient', { ...args, xGradient: before, adds: true }, ['xGradient']);
    added!.forEach((value, i) => expect(value).toBe(Math.fround(before[i]! + written![i]!)));
    const place = gradient.slice();
    openBackend(name).run('rmsNormGradient', { ...args, gradient: place, xGradient: place, adds: false, threads: 2 });
    expectSameBytes(place, written!);
  });

  test.each(SIZES)('layerNorm and layerNormGradient of %i columns', (cols) => {
    const [rows, epsilon] = [3, 1e-2];
    const { x, weight, bias, gradient, before, normed, want } = once(`layer norm ${cols}`, () => {
      const [x, weight, bias, gradient] = [floats(rows * cols), floats(cols), floats(cols), floats(rows * cols)];
      const norm = (of: Numbers) => {
        const out = new Float64Array(of.length);
        for (let at = 0; at < of.length; at += cols) {
          const row = of.subarray(at, at + cols);
          const mean = row.reduce((sum, v) => sum + v, 0) / cols;
          const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / cols;
          out.set(
            row.map((v, i) => ((v - mean) / Math.sqrt(variance + epsilon)) * weight[i]! + bias[i]!),
            at,
          );
        }
        return out;
      };
      const normed = norm(Float64Array.from(x));
      return { x, weight, bias, gradient, before: floats(rows * cols), normed, want: differences(norm, x, gradient) };
    });
    const shape = { rows, cols, epsilon, x, weight };
    expectNear(run(name, 'layerNorm', { ...shape, bias, out: blank(x) }, ['out'])[0]!, normed);
    const inPlace = x.slice();
    openBackend(name).run('layerNorm', { ...shape, x: inPlace, bias, out: inPlace, threads: 2 });
    expectNear(inPlace, normed);
    const args = { ...shape, gradient };
    const [written] = run(name, 'layerNormGradient', { ...args, xGradient: blank(x), adds: false }, ['xGradient']);
    expectNear(written!, want, 4 * NEAR);
    const [added] = run(name, 'layerNormGradient', { ...args, xGradient: before, adds: true }, ['xGradient']);
    added!.forEach((value, i) => expect(value).toBe(Math.fround(before[i]! + written![i]!)));
  });

  const tanhGelu = (g: number) => 0.5 * g * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (g + 0.044715 * g ** 3)));
  /** By its series around 0, which converges for the numbers here. */
  const erf = (z: number) => {
    let [sum, term] = [0, z];
    for (let n = 0; n < 200; n++) {
      sum += term / (2 * n + 1);
      term *= -(z * z) / (n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  };
  const exactGelu = (g: number) => (g * (1 + erf(g / Math.SQRT2))) / 2;

  test.each(SIZES)('gelu, geluTanh, relu and their gradients of %i', (count) => {
    for (const [operation, of] of [
      ['gelu', exactGelu],
      ['geluTanh', tanhGelu],
      ['relu', (g: number) => Math.max(g, 0)],
    ] as const) {
      const [x, gradient] = [floats(count, 1.5), floats(count)];
      // Within a step of differences of 0 the slope of relu is none.
      if (operation === 'relu') x.forEach((value, i) => void (Math.abs(value) < 0.01 && (x[i] = 0.5)));
      expectNear(
        run(name, operation, { x: x.slice() }, ['x'])[0]!,
        Float64Array.from(x, (g) => of(g)),
      );
      const [got] = run(name, `${operation}Gradient`, { x, gradient: gradient.slice() }, ['gradient']);
      expectNear(
        got!,
        differences((values) => values.map((g) => of(g)), x, gradient),
      );
    }
  });

  test('activations of encoders far from 0, too, have the slopes 0 and 1', () => {
    const x = Float32Array.of(90, -90, 1e4, -1e4, 1e30, -1e30, 3e38, -3e38, NaN);
    for (const operation of ['gelu', 'geluTanh', 'relu'] as const) {
      const [out] = run(name, operation, { x: x.slice() }, ['x']);
      expectNear(out!.subarray(0, 4), Float64Array.of(90, 0, 1e4, 0));
      const ones = new Float32Array(x.length).fill(1);
      const [slope] = run(name, `${operation}Gradient`, { x, gradient: ones }, ['gradient']);
      expectNear(slope!.subarray(0, 8), Float64Array.of(1, 0, 1, 0, 1, 0, 1, 0));
      expect(out![8]).toBeNaN();
    }
  });

  const silu = (g: number) => g / (1 + Math.exp(-g));
  const gelu = (g: number) => 0.5 * g * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (g + 0.044715 * g ** 3)));
  test.each(SIZES)('swigluGradient and gegluGradient of %i', (count) => {
    for (const [operation, activation] of [
      ['swigluGradient', silu],
      ['gegluGradient', gelu],
    ] as const) {
      const [gate, up, gradient] = [floats(count, 2), floats(count), floats(count)];
      const args = { gate, up, gradient, gateGradient: blank(gate), upGradient: blank(up) };
      const [ofGate, ofUp] = run(name, operation, args, ['gateGradient', 'upGradient']);
      expectNear(
        ofGate!,
        differences((x) => x.map((g, i) => activation(g) * up[i]!), gate, gradient),
      );
      expectNear(
        ofUp!,
        differences((x) => x.map((u, i) => activation(gate[i]!) * u), up, gradient),
      );
    }
  });

  test('activations far from 0 have the slopes 0 and 1', () => {
    const gate = Float32Array.of(90, -90, 1e4, -1e4, 1e30, -1e30, 3e38, -3e38, NaN);
    const ones = new Float32Array(gate.length).fill(1);
    for (const operation of ['swigluGradient', 'gegluGradient'] as const) {
      const args = { gate, up: ones, gradient: ones, gateGradient: blank(gate), upGradient: blank(gate) };
      const [ofGate] = run(name, operation, args, ['gateGradient', 'upGradient']);
      expectNear(ofGate!.subarray(0, 8), Float64Array.of(1, 0, 1, 0, 1, 0, 1, 0));
      expect(ofGate![8]).toBeNaN();
    }
  });

  test.each(SIZES)('scaleGradient, columnsGradient and clear of %i', (count) => {
    const [x, gradient, factor, softcap] = [floats(count), floats(count), 1.5, 2];
    const out = x.slice();
    openBackend(name).run('scale', { factor, softcap, x: out, threads: 1 });
    const [bent] = run(name, 'scaleGradient', { factor, softcap, out, gradient }, ['gradient']);
    const cap = (of: Numbers) => of.map((value) => softcap * Math.tanh((value * factor) / softcap));
    expectNear(bent!, differences(cap, x, gradient));
    const [width, from, rows] = [count + 3, 2, 2];
    const [wide, some] = [floats(rows * width), floats(rows * count)];
    const [got] = run(name, 'columnsGradient', { rows, width, from, cols: count, gradient: some, xGradient: wide }, [
      'xGradient',
    ]);
    got!.forEach((value, i) => {
      const [row, col] = [Math.floor(i / width), (i % width) - from];
      expect(value).toBe(Math.fround(wide[i]! + (col >= 0 && col < count ? some[row * count + col]! : 0)));
    });
    expect(run(name, 'clear', { x: blank(wide) }, ['x'])[0]).toEqual(new Float32Array(wide.length));
  });

  test.each([
    { rows: 1, heads: 1, kvHeads: 1, headDim: 2, window: 0, softcap: 0 },
    { rows: 18, heads: 4, kvHeads: 2, headDim: 5, window: 0, softcap: 0 },
    { rows: 16, heads: 1, kvHeads: 1, headDim: 17, window: 0, softcap: 0 },
    { rows: 35, heads: 2, kvHeads: 1, headDim: 3, window: 7, softcap: 0 },
    { rows: 33, heads: 2, kvHeads: 1, headDim: 2, window: 20, softcap: 0.7 },
    { rows: 17, heads: 2, kvHeads: 1, headDim: 6, window: 0, softcap: 2 },
    { rows: 19, heads: 1, kvHeads: 1, headDim: 5, window: 1, softcap: 0 },
    { rows: 18, heads: 2, kvHeads: 2, headDim: 5, window: 0, softcap: 0, causal: false },
    { rows: 35, heads: 2, kvHeads: 1, headDim: 3, window: 0, softcap: 0, causal: false },
  ])('attentionGradient: %j', ({ causal = true, ...shape }: AttentionShape) => {
    const { rows, heads, kvHeads, headDim, window, softcap } = shape;
    const scale = 1.2 / Math.sqrt(headDim);
    const { q, k, v, gradient, want } = once(JSON.stringify([shape, causal]), () => {
      const [q, k, v] = [
        floats(rows * heads * headDim),
        floats(rows * kvHeads * headDim),
        floats(rows * kvHeads * headDim),
      ];
      const gradient = floats(q.length);
      const attention = (of: { q?: Numbers; k?: Numbers; v?: Numbers }) => {
        const [queries, keys, values] = [of.q ?? q, of.k ?? k, of.v ?? v];
        const out = new Float64Array(q.length);
        for (let r = 0; r < rows; r++)
          for (let h = 0; h < heads; h++) {
            const [at, g] = [(r * heads + h) * headDim, Math.floor((h * kvHeads) / heads)];
            let total = 0;
            for (let j = window > 0 ? Math.max(0, r - window + 1) : 0; j < (causal ? r + 1 : rows); j++) {
              const line = (j * kvHeads + g) * headDim;
              let score = 0;
              for (let d = 0; d < headDim; d++) score += scale * queries[at + d]! * keys[line + d]!;
              const weight = Math.exp(softcap > 0 ? softcap * Math.tanh(score / softcap) : score);
              total += weight;
              for (let d = 0; d < headDim; d++) out[at + d]! += weight * values[line + d]!;
            }
            for (let d = 0; d < headDim; d++) out[at + d]! /= total;
          }
        return out;
      };
      const want = {
        q: differences((x) => attention({ q: x }), q, gradient),
        k: differences((x) => attention({ k: x }), k, gradient),
        v: differences((x) => attention({ v: x }), v, gradient),
      };
      return { q, k, v, gradient, want };
    });
    const grads = { qGradient: blank(q), kGradient: blank(k), vGradient: blank(v) };
    const args = { ...shape, causal, scale, q, k, v, gradient, ...grads };
    const [ofQ, ofK, ofV] = run(name, 'attentionGradient', args, ['qGradient', 'kGradient', 'vGradient']);
    expectNear(ofQ!, want.q);
    expectNear(ofK!, want.k);
    expectNear(ofV!, want.v);
  });
});
