import { describe, expect, test } from 'vitest';
import { dequantizeSync, quantizeSync } from '../lib/compute/quantize.js';
import { Scratch } from '../lib/containers/scratch.js';
import type { Prune } from '../lib/matrix/config.js';
import { pruneRows } from '../lib/models/quantize/prune.js';
import { quantizeModel } from '../lib/models/quantize/quantize.js';
import { readWeights } from '../lib/models/quantize/read-weights.js';
import { SOLVERS } from '../lib/solvers/solvers.js';
import { expectSameBytes } from './support/bytes.js';
import {
  failure,
  freshPath,
  llama,
  modelFile,
  modelFolder,
  numbersOf,
  randomWeights,
  readBack,
  type Source,
  snapshot,
  tensorOf,
} from './support/checkpoints.js';
import { hqq } from './support/cli.js';

const [ROWS, COLS] = [24, 96];
const data = randomWeights(ROWS * COLS, 3);
const importance = Float32Array.from({ length: COLS }, (_, i) => (i % 5) ** 2 + 0.25);

/** Sorts the weights of each unit of a row by what they count, and takes the first. */
function oracle(weights: Float32Array, cols: number, prune: Prune, counts?: Float32Array): Float32Array {
  const [count, of] =
    typeof prune === 'number' ? [Math.floor(prune * cols + 1e-6), cols] : prune.split(':').map(Number);
  const pruned = weights.slice();
  const score = (at: number) => Math.fround(Math.abs(weights[at]!) * Math.fround(Math.sqrt(counts?.[at % cols] ?? 1)));
  for (let row = 0; row < weights.length; row += cols)
    for (let first = row; first + of! <= row + cols; first += of!) {
      const unit = Array.from({ length: of! }, (_, i) => first + i).sort((a, b) => score(a) - score(b) || a - b);
      for (const at of unit.slice(0, count)) pruned[at] = 0;
    }
  return pruned;
}

const PRUNES: readonly Prune[] = [0.5, 0.29, 0.9, '2:4', '4:8'];

describe.each(PRUNES)('prune: %s', (prune) => {
  test('makes zeros of the weights that count least, of any type', () => {
    for (const counts of [undefined, importance]) {
      const weights = data.slice();
      pruneRows(weights, 'float32', COLS, prune, counts);
      expectSameBytes(weights, oracle(data, COLS, prune, counts));
      const bits = new Uint16Array(new Uint32Array(data.buffer).map((one) => one >>> 16));
      const wide = new Float32Array(Uint32Array.from(bits, (one) => one << 16).buffer);
      pruneRows(bits, 'bfloat16', COLS, prune, counts);
      expectSameBytes(
        new Float32Array(Uint32Array.from(bits, (one) => one << 16).buffer),
        oracle(wide, COLS, prune, counts),
      );
    }
  });

  test('leaves exact zeros, whatever finds scales and zeros', () => {
    const sparse = data.slice();
    pruneRows(sparse, 'float32', COLS, prune, importance);
    for (const solver of SOLVERS.filter((name) => name !== 'hqq'))
      for (const zeroPoint of ['integer', 'symmetric'] as const)
        for (const axis of [0, 1] as const) {
          const weight = { data: sparse, dtype: 'float32', shape: [ROWS, COLS] } as const;
          const q = quantizeSync(weight, { solver, zeroPoint, axis, nbits: 4, groupSize: 32 }, { importance });
          expect(dequantizeSync(q).every((number, i) => sparse[i] !== 0 || number === 0)).toBe(true);
        }
  });
});

test('of equal weights the first are pruned, and what is left of a row over whole patterns stays', () => {
  const ones = new Float32Array(10).fill(1);
  pruneRows(ones, 'float32', 10, 0.5, undefined);
  expect([...ones]).toEqual([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
  const more = new Float32Array(10).fill(1);
  pruneRows(more, 'float32', 10, '2:4', undefined);
  expect([...more]).toEqual([0, 0, 1, 1, 0, 0, 1, 1, 1, 1]);
});

test('rows are pruned as wholes, whatever parts of them a chunk has', async () => {
  const file = modelFile({ 'a.weight': tensorOf(data, [ROWS, COLS]) });
  const { openSource } = await import('../lib/containers/list.js');
  const source = await openSource(file);
  try {
    const weight = source.entries.get('a.weight')!;
    const site = { name: 'a', weight, shape: [ROWS, COLS], stored: 'out-in' } as const;
    const layer = { site, form: { config: { prune: 0.5 } } } as unknown as Parameters<typeof readWeights>[1];
    const run = { source, importance: new Map([['a', importance]]) };
    const whole = oracle(data, COLS, 0.5, importance);
    const chunks = [
      [{ at: 0, count: ROWS * COLS }],
      [
        { at: 10, count: 7 },
        { at: 30, count: 1 },
        { at: 90, count: 200 },
        { at: 1000, count: 96 },
      ],
      Array.from({ length: ROWS }, (_, row) => ({ at: row * COLS + 5, count: 16 })),
    ];
    for (const ranges of chunks) {
      const count = ranges.reduce((sum, range) => sum + range.count, 0);
      const chunk = { weights: ranges, count };
      const { bytes, pruned } = await readWeights(run, layer, chunk, new Scratch(), new AbortController().signal);
      const parts = ranges.flatMap(({ at, count: many }) => [...whole.subarray(at, at + many)]);
      const before = ranges.flatMap(({ at, count: many }) => [...data.subarray(at, at + many)]);
      expect([...new Float32Array(bytes.buffer, bytes.byteOffset, count)]).toEqual(parts);
      const gone = before.filter((_, i) => parts[i] === 0);
      expect(pruned!.absError).toBeCloseTo(
        gone.reduce((sum, one) => sum + Math.abs(one), 0),
        6,
      );
      expect(pruned!.squaredError).toBeCloseTo(
        gone.reduce((sum, one) => sum + one * one, 0),
        6,
      );
    }
  } finally {
    await source.close();
  }
});

test('a model becomes what one of pruned weights becomes, in every format, and the report says how sparse', async () => {
  const source = llama('float32');
  const sparse: Source = Object.fromEntries(
    Object.entries(source).map(([name, tensor]) => {
      const [rows, cols] = tensor.shape;
      if (!/layers.*_proj\.weight/.test(name) || rows === undefined) return [name, tensor];
      return [name, tensorOf(oracle(numbersOf(tensor), cols!, '2:4'), tensor.shape)];
    }),
  );
  const [dense, pruned] = [modelFolder([source]), modelFolder([sparse])];
  for (const options of [
    { zeroPoint: 'integer' },
    { zeroPoint: 'symmetric', metaBits: 8 },
    { to: 'compressed-tensors', zeroPoint: 'symmetric', groupSize: 32 },
    { to: 'gptq', groupSize: 32 },
  ] as const) {
    const [ours, direct] = [freshPath('ours'), freshPath('direct')];
    const report = await quantizeModel(dense, ours, { ...options, prune: '2:4' });
    expect(report.totals.sparsity).toBe(0.5);
    expect(report.tensors.every(({ sparsity }) => sparsity === 0.5)).toBe(true);
    await quantizeModel(pruned, direct, options);
    expect(snapshot(ours)).toEqual(snapshot(direct));
  }
  const plain = await quantizeModel(dense, freshPath('plain'), { embeddings: 8, zeroPoint: 'integer', prune: 0.5 });
  const table = plain.tensors.find(({ name }) => name === 'model.embed_tokens.weight')!;
  expect(table.sparsity).toBeUndefined();
});

test('what cannot be pruned is refused', async () => {
  const weight = { data, dtype: 'float32', shape: [ROWS, COLS] } as const;
  for (const prune of [1, -0.1, '1:2', 'toString', NaN, null]) {
    const error = await failure(() => quantizeSync(weight, { prune: prune as Prune, zeroPoint: 'integer' }));
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION' });
    expect(error.message).toContain('Expected prune to be a number in [0, 1), 2:4 or 4:8');
  }
  const float = await failure(() => quantizeSync(weight, { prune: 0.5 }));
  expect(float.message).toBe(
    'Expected zeroPoint to be integer or symmetric with prune: a code must stand for 0, got float.',
  );
  const whole = await failure(() => quantizeSync(weight, { prune: 0.5, zeroPoint: 'integer' }));
  expect(whole.message).toBe('Expected no prune but of quantizeModel, got 0.5.');
  const folder = modelFolder([llama()]);
  const refined = await failure(() =>
    quantizeModel(folder, freshPath(), { prune: 0.5, zeroPoint: 'integer', refine: true }),
  );
  expect(refined.message).toContain('with refine');
  const sequential = await failure(() =>
    quantizeModel(folder, freshPath(), { prune: 0.5, zeroPoint: 'integer', sequential: true }),
  );
  expect(sequential.message).toBe('Expected nothing to be pruned (prune) with sequential, got 0.5.');
});

test('hqq quantize --prune', async () => {
  const folder = modelFolder([llama()]);
  const out = freshPath();
  const { stdout, status } = await hqq([
    'quantize',
    folder,
    '--out',
    out,
    '--zero-point',
    'integer',
    '--prune',
    '0.25',
  ]);
  expect(status).toBe(0);
  expect(stdout).toMatch(/pruned +25\.0 % of these weights/);
  expect(readBack(out).size).toBeGreaterThan(0);
  const wrong = await hqq(['quantize', folder, '--out', freshPath(), '--prune', '3:4']);
  expect(wrong.status).toBe(2);
});
