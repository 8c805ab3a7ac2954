import { describe, expect, test } from 'vitest';
import type { AttentionArgs, Operations } from '../../binding.js';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { KEY_STRIP } from '../../lib/matrix/constants.js';
import '../../lib/runtime/blocks/plan.js'; // provides these operations in JavaScript
import { expectSameBytes } from '../support/bytes.js';

const BACKENDS = availableBackends();
/** Around every vector width, and past a tile of them. */
const SIZES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 344];
/** Unit of the last place of float32, relative. */
const EPSILON = 2 ** -24;

let state = 1;
/** In [-1, 1), the same in every run. */
function next(): number {
  state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return state / 2 ** 31;
}
const floats = (length: number) => Float32Array.from({ length }, () => next() * 2);

/** Runs an operation with outputs of NaN, on each number of threads: the bits must not depend on it. */
function run<K extends keyof Operations>(
  name: string,
  operation: K,
  args: Omit<Operations[K], 'out' | 'threads'>,
  length: number,
): Float32Array {
  const outs = [1, 2, 7].map((threads) => {
    const out = new Float32Array(length).fill(NaN);
    openBackend(name).run(operation, { ...args, out, threads } as unknown as Operations[K]);
    return out;
  });
  for (const out of outs) expectSameBytes(out, outs[0]!);
  return outs[0]!;
}

type AttentionShape = Pick<AttentionArgs, 'rows' | 'heads' | 'kvHeads' | 'headDim' | 'window' | 'scale'> &
  Partial<Pick<AttentionArgs, 'softcap'>> & {
    /** Position of the first row. */
    readonly start: number;
  };

const NO_META = new Float32Array(0);

/** `keys` and `values` are `[start + rows, kvHeads, headDim]`. What the caches hold from `start` on is no number. */
function attentionArgs({ start, ...shape }: AttentionShape, q: Float32Array, keys: Float32Array, values: Float32Array) {
  const { rows, kvHeads, headDim } = shape;
  const capacity = Math.ceil((start + rows) / KEY_STRIP) * KEY_STRIP + KEY_STRIP;
  const cache = {
    keys: new Float32Array(capacity * kvHeads * headDim).fill(NaN),
    values: new Float32Array(capacity * kvHeads * headDim).fill(NaN),
  };
  for (let j = 0; j < start; j++) {
    for (let g = 0; g < kvHeads; g++) {
      for (let d = 0; d < headDim; d++) {
        const from = (j * kvHeads + g) * headDim + d;
        const head = g * capacity * headDim;
        cache.keys[head + (j - (j % KEY_STRIP)) * headDim + d * KEY_STRIP + (j % KEY_STRIP)] = keys[from]!;
        cache.values[head + j * headDim + d] = values[from]!;
      }
    }
  }
  const fresh = start * kvHeads * headDim;
  const positions = Int32Array.from({ length: rows }, (_, row) => start + row);
  const segments = [{ capacity, ...cache, keyMeta: NO_META, valueMeta: NO_META }];
  const fixed = { positions, softcap: 0, cacheType: 0 };
  return { ...fixed, ...shape, q, k: keys.slice(fresh), v: values.slice(fresh), segments };
}

/** `got` is within `bound(i)` of `want(i)`. */
function expectNear(got: Float32Array, want: (i: number) => number, bound: (i: number) => number): void {
  got.forEach((value, i) => {
    if (!(Math.abs(value - want(i)) <= bound(i)))
      expect.fail(`element ${i}: ${value}, not ${want(i)} within ${bound(i)}`);
  });
}

/** Products of rows in float64, and their sums of |terms|. */
function exactSums(x: Float32Array, weights: Float32Array, inFeatures: number) {
  const [batch, outFeatures] = [x.length / inFeatures, weights.length / inFeatures];
  const [sums, sizes] = [new Float64Array(batch * outFeatures), new Float64Array(batch * outFeatures)];
  for (let i = 0; i < sums.length; i++) {
    const [from, to] = [Math.floor(i / outFeatures) * inFeatures, (i % outFeatures) * inFeatures];
    for (let k = 0; k < inFeatures; k++) {
      const term = x[from + k]! * weights[to + k]!;
      sums[i]! += term;
      sizes[i]! += Math.abs(term);
    }
  }
  return { sums, sizes };
}

describe.each(BACKENDS)('%s', (name) => {
  test.each(SIZES)(
    'denseLinear of %i inputs is as exact as a sum of float32 can be, and a row does not know its batch',
    (inFeatures) => {
      for (const [batch, outFeatures] of [
        [1, 1],
        [1, 9],
        [2, 5],
        [3, 17],
        [5, 66],
        [13, 8],
      ] as const) {
        const [x, weights, bias] = [floats(batch * inFeatures), floats(outFeatures * inFeatures), floats(outFeatures)];
        const out = run(name, 'denseLinear', { batch, inFeatures, outFeatures, x, weights, bias }, batch * outFeatures);
        const { sums, sizes } = exactSums(x, weights, inFeatures);
        // Sixteen running sums: no term is rounded more often than a sixteenth of them, and five times in the tree.
        const bound = (i: number) =>
          EPSILON * (Math.ceil(inFeatures / 16) + 7) * (sizes[i]! + Math.abs(bias[i % outFeatures]!));
        expectNear(out, (i) => sums[i]! + bias[i % outFeatures]!, bound);
        const rest = { inFeatures, outFeatures, weights, bias };
        for (let b = 0; b < batch; b++) {
          const row = run(
            name,
            'denseLinear',
            { batch: 1, x: x.slice(b * inFeatures, (b + 1) * inFeatures), ...rest },
            outFeatures,
          );
          expectSameBytes(row, out.slice(b * outFeatures, (b + 1) * outFeatures));
        }
        const none = run(name, 'denseLinear', { batch, x, ...rest, bias: new Float32Array(0) }, batch * outFeatures);
        expectNear(none, (i) => sums[i]!, bound);
      }
    },
  );

  test.each(SIZES)('rmsNorm of %i columns', (cols) => {
    const rows = 3;
    const [x, weight] = [floats(rows * cols), floats(cols)];
    const out = run(name, 'rmsNorm', { rows, cols, epsilon: 1e-5, x, weight }, rows * cols);
    const want = (i: number) => {
      const row = x.subarray(Math.floor(i / cols) * cols, (Math.floor(i / cols) + 1) * cols);
      const mean = row.reduce((sum, v) => sum + v * v, 0) / cols;
      return (x[i]! / Math.sqrt(mean + 1e-5)) * weight[i % cols]!;
    };
    expectNear(out, want, (i) => EPSILON * (cols / 16 + 16) * Math.abs(want(i)));
  });

  test.each([2, 8, 32, 34, 64, 128])('rope of heads of %i', (headDim) => {
    const [rows, heads, half] = [3, 5, headDim / 2];
    const angles = Float64Array.from({ length: rows * half }, () => next() * 100);
    const [cos, sin] = [Float32Array.from(angles, Math.cos), Float32Array.from(angles, Math.sin)];
    const before = floats(rows * heads * headDim);
    const x = before.slice();
    openBackend(name).run('rope', { rows, heads, headDim, turned: headDim, cos, sin, x, threads: 2 });
    expectNear(
      x,
      (i) => {
        const [row, d] = [Math.floor(i / (heads * headDim)), i % headDim];
        const [c, s] = [cos[row * half + (d % half)]!, sin[row * half + (d % half)]!];
        return d < half ? before[i]! * c - before[i + half]! * s : before[i]! * c + before[i - half]! * s;
      },
      () => EPSILON * 12,
    );
  });

  test.each([
    { heads: 1, kvHeads: 1, headDim: 2, start: 0, rows: 1, window: 0 },
    { heads: 8, kvHeads: 4, headDim: 8, start: 0, rows: 21, window: 0 },
    { heads: 6, kvHeads: 2, headDim: 34, start: 5, rows: 3, window: 0 },
    { heads: 4, kvHeads: 1, headDim: 64, start: 70, rows: 1, window: 0 },
    { heads: 2, kvHeads: 2, headDim: 80, start: 3, rows: 40, window: 7 },
    { heads: 3, kvHeads: 3, headDim: 128, start: 33, rows: 2, window: 1 },
    { heads: 2, kvHeads: 1, headDim: 16, start: 1, rows: 4, window: 100 },
    { heads: 4, kvHeads: 2, headDim: 24, start: 37, rows: 5, window: 20, softcap: 0.5 },
  ])('attention: %j', ({ heads, kvHeads, headDim, start, rows, window, softcap = 0 }) => {
    const scale = 1 / Math.sqrt(headDim);
    const q = floats(rows * heads * headDim);
    const [keys, values] = [floats((start + rows) * kvHeads * headDim), floats((start + rows) * kvHeads * headDim)];
    const shape = { rows, heads, kvHeads, headDim, start, window, scale, softcap };
    const out = run(name, 'attention', attentionArgs(shape, q, keys, values), q.length);
    const want = new Float64Array(out.length);
    for (let r = 0; r < rows; r++) {
      for (let h = 0; h < heads; h++) {
        const g = Math.floor((h * kvHeads) / heads);
        const at = (r * heads + h) * headDim;
        const weights: [number, number][] = [];
        for (let j = 0; j <= start + r; j++) {
          if (window > 0 && j <= start + r - window) continue;
          let score = 0;
          for (let d = 0; d < headDim; d++) score += q[at + d]! * keys[(j * kvHeads + g) * headDim + d]!;
          const scaled = score * scale;
          weights.push([j, Math.exp(softcap > 0 ? softcap * Math.tanh(scaled / softcap) : scaled)]);
        }
        const total = weights.reduce((sum, [, w]) => sum + w, 0);
        for (const [j, w] of weights) {
          for (let d = 0; d < headDim; d++)
            want[at + d] = want[at + d]! + (w / total) * values[(j * kvHeads + g) * headDim + d]!;
        }
      }
    }
    // Scores are below 2 * 2 * sqrt(headDim), their error some units of that; values are below 2.
    expectNear(
      out,
      (i) => want[i]!,
      () => EPSILON * 64 * Math.sqrt(headDim),
    );
  });

  test.each(SIZES)('swiglu and add of %i', (count) => {
    const [gate, up] = [floats(count).map((g) => g * 5), floats(count)];
    const silu = (i: number) => gate[i]! / (1 + Math.exp(-gate[i]!));
    expectNear(
      run(name, 'swiglu', { gate, up }, count),
      (i) => silu(i) * up[i]!,
      (i) => EPSILON * 16 * Math.abs(silu(i) * up[i]!),
    );
    const to = up.slice();
    openBackend(name).run('add', { x: gate, to, threads: 2 });
    expect(to).toEqual(up.map((u, i) => u + gate[i]!));
  });

  test.each(SIZES)('geglu, scale and columns of %i', (count) => {
    const [gate, up] = [floats(count).map((g) => g * 3), floats(count)];
    const gelu = (i: number) => {
      const g = gate[i]!;
      return 0.5 * g * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (g + 0.044715 * g ** 3)));
    };
    expectNear(
      run(name, 'geglu', { gate, up }, count),
      (i) => gelu(i) * up[i]!,
      (i) => EPSILON * (16 * Math.abs(gelu(i) * up[i]!) + 64 * Math.abs(gate[i]! * up[i]!)),
    );
    for (const softcap of [0, 2, 30]) {
      const x = gate.slice();
      openBackend(name).run('scale', { x, factor: 1.5, softcap, threads: 2 });
      const want = (i: number) => (softcap > 0 ? softcap * Math.tanh((1.5 * gate[i]!) / softcap) : 1.5 * gate[i]!);
      expectNear(x, want, (i) => (softcap > 0 ? 3e-7 * softcap : EPSILON * Math.abs(want(i))));
    }
    const columns = { rows: 2, width: count + 3, from: 2, cols: count };
    const x = floats(2 * (count + 3));
    const got = run(name, 'columns', { ...columns, x }, 2 * count);
    expect(got).toEqual(Float32Array.of(...x.subarray(2, 2 + count), ...x.subarray(count + 5, 2 * count + 5)));
  });

  test('rope turns the first elements of each head, where others are to stay', () => {
    const [rows, heads, headDim, turned] = [3, 2, 10, 6];
    const [cos, sin, x] = [floats((rows * turned) / 2), floats((rows * turned) / 2), floats(rows * heads * headDim)];
    const part = Float32Array.from(
      { length: rows * heads * turned },
      (_, i) => x[Math.floor(i / turned) * headDim + (i % turned)]!,
    );
    const got = x.slice();
    openBackend(name).run('rope', { rows, heads, headDim, turned, cos, sin, x: got, threads: 2 });
    openBackend(name).run('rope', { rows, heads, headDim: turned, turned, cos, sin, x: part, threads: 1 });
    const want = x.map((value, i) =>
      i % headDim < turned ? part[Math.floor(i / headDim) * turned + (i % headDim)]! : value,
    );
    expect(got).toEqual(want);
  });

  test('swiglu at the ends of what a float can be', () => {
    const gate = Float32Array.of(0, -0, 1e-38, 100, -100, 1e30, -1e30, 3e38, -3e38, NaN);
    const out = run(name, 'swiglu', { gate, up: new Float32Array(gate.length).fill(1) }, gate.length);
    expect([...out.slice(0, 9)].map((v) => Math.fround(v))).toEqual(
      [0, -0, 1e-38 / 2, 100, expect.closeTo(0, 20), 1e30, expect.anything(), 3e38, expect.anything()].map((v) =>
        typeof v === 'number' ? Math.fround(v) : v,
      ),
    );
    expect(out[9]).toBeNaN();
  });

  test('attention does not average NaN away', () => {
    const [rows, heads, kvHeads, headDim, start] = [2, 2, 1, 20, 3];
    const cache = (start + rows) * headDim;
    for (const [broken, at] of [
      ['q', 25],
      ['keys', 7],
      ['values', 7],
    ] as const) {
      const arrays = { q: floats(rows * heads * headDim), keys: floats(cache), values: floats(cache) };
      arrays[broken][at] = NaN;
      const args = attentionArgs(
        { rows, heads, kvHeads, headDim, start, window: 0, scale: 1 },
        arrays.q,
        arrays.keys,
        arrays.values,
      );
      const out = run(name, 'attention', args, arrays.q.length);
      const expected = (i: number) => ({ q: i >= 20 && i < 40, keys: true, values: i % headDim === 7 })[broken];
      expect([...out].map(Number.isNaN)).toEqual([...out].map((_, i) => expected(i)));
    }
  });

  test('attention refuses positions that its cache has no room for, whenever they come to be there', async () => {
    const shape = { rows: 2, heads: 1, kvHeads: 1, headDim: 4, start: 3, window: 0, scale: 1 };
    const args = {
      ...attentionArgs(shape, floats(8), floats(20), floats(20)),
      ...{ out: new Float32Array(8), threads: 2 },
    };
    const backend = openBackend(name);
    const prepared = {
      sequences: backend.prepare({ sequences: [{ steps: [{ operation: 'attention', args }] }] }),
      index: 0,
    };
    const [{ capacity, keys, values }] = args.segments as [(typeof args.segments)[number]];
    for (const wrong of [capacity, capacity + 1, -1, 2 ** 31 - 1, -(2 ** 31)]) {
      args.positions.set([3, wrong]);
      const before = [keys, values, args.out].map((array) => array.slice());
      const range = `[0, ${capacity - 1}], got ${wrong}`;
      expect(() => backend.run('attention', args)).toThrow(range);
      expect(() => backend.run('prepared', prepared)).toThrow(range);
      await expect(backend.start('attention', args).promise).rejects.toThrow(range);
      await expect(backend.start('prepared', prepared).promise).rejects.toThrow(range);
      expect([keys, values, args.out]).toEqual(before);
    }
    args.positions.set([3, 4]);
    backend.run('prepared', prepared);
    expect(args.out.every(Number.isFinite)).toBe(true);
  });

  test('a prepared attention serves every position, and rows in any order', () => {
    const shape = { rows: 3, heads: 2, kvHeads: 1, headDim: 6, start: 0, window: 5, scale: 0.4 };
    const [q, keys, values] = [floats(36), floats(18), floats(18)];
    const inOrder = run(name, 'attention', attentionArgs(shape, q, keys, values), 36);
    const args = attentionArgs({ ...shape, rows: 1 }, new Float32Array(12), keys.slice(0, 6), values.slice(0, 6));
    const [out, backend] = [new Float32Array(12), openBackend(name)];
    const steps = [{ operation: 'attention', args: { ...args, out, threads: 1 } }] as const;
    const sequences = backend.prepare({ sequences: [{ steps }] });
    for (const position of [0, 1, 2]) {
      args.positions[0] = position;
      args.q.set(q.subarray(position * 12, position * 12 + 12));
      args.k.set(keys.subarray(position * 6, position * 6 + 6));
      args.v.set(values.subarray(position * 6, position * 6 + 6));
      backend.run('prepared', { sequences, index: 0 });
      expect(out).toEqual(inOrder.slice(position * 12, position * 12 + 12));
    }
    const turned = (array: Float32Array, width: number) =>
      Float32Array.from({ length: array.length }, (_, i) => array[(2 - Math.floor(i / width)) * width + (i % width)]!);
    const backwards = attentionArgs(shape, turned(q, 12), turned(keys, 6), turned(values, 6));
    const got = run(name, 'attention', { ...backwards, positions: Int32Array.of(2, 1, 0) }, 36);
    expect(turned(got, 12)).toEqual(inOrder);
  });

  test('a sequence runs its steps in order, now and later', async () => {
    const x = Float32Array.of(1, 2, 3);
    const to = new Float32Array(3);
    const step = { operation: 'add', args: { x, to, threads: 1 } } as const;
    const twice = { operation: 'add', args: { x: to, to, threads: 2 } } as const;
    openBackend(name).run('sequence', { steps: [step, twice] });
    expect([...to]).toEqual([2, 4, 6]);
    await openBackend(name).start('sequence', { steps: [twice, step] }).promise;
    expect([...to]).toEqual([5, 10, 15]);
  });
});

describe.each(BACKENDS.filter((name) => name !== 'js'))('%s refuses what would read beyond an array', (name) => {
  const backend = openBackend(name);
  const f = (length: number) => new Float32Array(length);
  const attention = {
    ...{ rows: 1, heads: 2, kvHeads: 2, headDim: 2, positions: Int32Array.of(1), window: 0, scale: 1, softcap: 0 },
    ...{ cacheType: 0, q: f(4), k: f(4), v: f(4), out: f(4) },
  };
  const segment = { capacity: 16, keys: f(64), values: f(64), keyMeta: f(0), valueMeta: f(0) };
  const bytes = { ...segment, keys: new Uint8Array(64), values: new Uint8Array(64), keyMeta: f(64), valueMeta: f(64) };
  const kept = (...segments: object[]) => ({ ...attention, segments });
  test.each<[string, keyof Operations, object]>([
    [
      'weights',
      'denseLinear',
      { batch: 2, inFeatures: 3, outFeatures: 4, x: f(6), weights: f(11), bias: f(0), out: f(8) },
    ],
    [
      'bias',
      'denseLinear',
      { batch: 2, inFeatures: 3, outFeatures: 4, x: f(6), weights: f(12), bias: f(3), out: f(8) },
    ],
    ['weight', 'rmsNorm', { rows: 1, cols: 4, epsilon: 0, x: f(4), weight: f(3), out: f(4) }],
    ['turned', 'rope', { rows: 1, heads: 1, headDim: 3, turned: 4, cos: f(2), sin: f(2), x: f(3) }],
    ['cos', 'rope', { rows: 2, heads: 1, headDim: 4, turned: 4, cos: f(2), sin: f(4), x: f(8) }],
    ['kvHeads', 'attention', { ...kept(segment), heads: 3, q: f(6), out: f(6) }],
    ['k', 'attention', { ...kept(segment), k: f(8) }],
    ['keys', 'attention', kept({ ...segment, keys: f(32) })],
    ['values', 'attention', kept(segment, { ...segment, values: f(63) })],
    ['keys', 'attention', { ...kept(bytes), cacheType: 0 }],
    ['keys', 'attention', { ...kept(bytes), cacheType: 1 }],
    ['keys', 'attention', { ...kept(segment), cacheType: 2 }],
    ['keyMeta', 'attention', { ...kept({ ...bytes, keyMeta: f(63) }), cacheType: 2 }],
    ['valueMeta', 'attention', { ...kept({ ...bytes, valueMeta: f(0) }), cacheType: 2 }],
    ['cacheType', 'attention', { ...kept(bytes), cacheType: 3 }],
    ['segments', 'attention', kept()],
    ['segments', 'attention', { ...attention, segments: undefined }],
    ['positions', 'attention', { ...kept(segment), positions: new Int32Array(2) }],
    ['positions', 'attention', { ...kept(segment), positions: new Float32Array(1) }],
    ['capacity', 'attention', kept({ ...segment, capacity: 17, keys: f(68), values: f(68) })],
    ['capacity', 'attention', { ...kept({ ...segment, capacity: 2 ** 31 }), rows: 2 ** 31 }],
    [
      'memory',
      'attention',
      { ...kept(segment), rows: 2, positions: new Int32Array(2), heads: 4e9, kvHeads: 4e9, headDim: 4e9 },
    ],
    ['array', 'largePages', { array: new Uint8Array(4), toPage: new Int32Array(1) }],
    ['toPage', 'largePages', { array: f(4), toPage: new Int32Array(2) }],
    ['up', 'swiglu', { gate: f(3), up: f(2), out: f(3) }],
    ['x', 'add', { x: f(3), to: f(4) }],
    ['up', 'geglu', { gate: f(3), up: f(2), out: f(3) }],
    ['factor', 'scale', { x: f(3), softcap: 0 }],
    ['bias', 'layerNorm', { rows: 1, cols: 3, epsilon: 0, x: f(3), weight: f(3), bias: f(2), out: f(3) }],
    ['x', 'gelu', { x: new Uint8Array(3) }],
    ['gradient', 'reluGradient', { x: f(3), gradient: f(2) }],
    ['cols', 'columns', { rows: 1, width: 3, from: 0, cols: 4, x: f(3), out: f(4) }],
    ['from', 'columns', { rows: 1, width: 3, from: 2, cols: 2, x: f(3), out: f(2) }],
    ['out', 'columns', { rows: 2, width: 3, from: 1, cols: 2, x: f(6), out: f(3) }],
    ['steps', 'sequence', { steps: 3 }],
    ['steps', 'sequence', { steps: [3] }],
    ['operation', 'sequence', { steps: [{ operation: 'what', args: {} }] }],
    ['steps', 'sequence', { steps: [{ operation: 'sequence', args: { steps: [] } }] }],
  ])('%s of %s', (word, operation, args) => {
    expect(() => backend.run(operation, { ...args, threads: 1 } as never)).toThrow(word);
    const nested = { steps: [{ operation, args: { ...args, threads: 1 } }] } as never;
    if (operation !== 'sequence') expect(() => backend.run('sequence', nested)).toThrow(word);
    if (operation !== 'sequence') expect(() => backend.prepare({ sequences: [nested] })).toThrow(word);
  });
});
