import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { groupedQuantizeArgs } from '../../lib/compute/arguments.js';
import { QuantizedLinear } from '../../lib/compute/linear.js';
import { dequantizeSync, quantizeSync, unpack } from '../../lib/compute/quantize.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { requireForm } from '../../lib/matrix/fit.js';
import { allocateWords, packedRows } from '../../lib/matrix/format.js';
import { GRANULARITIES } from '../../lib/matrix/grouping.js';
import { OPTIONS, resolveQuantConfig } from '../../lib/matrix/options.js';
import { overlay } from '../../lib/matrix/overlay.js';
import { compareModels } from '../../lib/models/compare.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { SOLVERS } from '../../lib/solvers/solvers.js';
import { expectSameBytes } from '../support/bytes.js';
import { freshPath, modelFile, randomTensor, randomWeights, tensorOf } from '../support/checkpoints.js';
import { hqq } from '../support/cli.js';

const SHAPE = [64, 80] as const;
const weight = (seed = 1) => ({ data: randomWeights(SHAPE[0] * SHAPE[1], seed), shape: SHAPE });

/** Groups of a matrix, and the weights of each. */
const GROUPS: Record<string, (axis: 0 | 1) => [groups: number, size: number]> = {
  group: () => [80, 64],
  channel: (axis) => (axis === 1 ? [64, 80] : [80, 64]),
  tensor: () => [1, 5120],
  weight: () => [5120, 1],
};

for (const granularity of GRANULARITIES) {
  for (const axis of [0, 1] as const) {
    describe(`${granularity}, axis ${axis}`, () => {
      const [groups, size] = GROUPS[granularity]!(axis);

      test.each(SOLVERS)('%s: as many scales, on every backend the same', (solver) => {
        const { data, shape } = weight();
        const q = quantizeSync({ data, shape }, { granularity, axis, solver });
        expect([q.scale.length, q.zero.length, q.groupSize, q.axis]).toEqual([groups, groups, size, axis]);
        const { config, format, geometry } = requireForm(shape, { granularity, axis, solver });
        const { rows, cols } = geometry;
        for (const name of availableBackends()) {
          const packed = allocateWords(format, packedRows(format, rows) * cols);
          const [scale, zero] = [new Float32Array(groups), new Float32Array(groups)];
          const outputs = { packed, scale, zero, stats: new Float64Array(5), threads: 2 };
          const grid = {
            rows,
            cols,
            axis,
            config,
            format,
            metaDtype: 'float32',
            weights: data,
            dtype: 'float32',
          } as const;
          openBackend(name).run('quantize', groupedQuantizeArgs({ ...grid, ...outputs }));
          expectSameBytes(packed, q.packed);
          expectSameBytes(scale, q.scale);
        }
      });

      test.each([8, 4, 3, 2, 1] as const)('%i bits: codes, weights, products and files agree', async (nbits) => {
        const { data, shape } = weight();
        const q = quantizeSync({ data, shape }, { granularity, axis, nbits });
        const codes = unpack(q);
        const w = dequantizeSync(q);
        const groupOf = (i: number) => (axis === 1 ? Math.floor(i / size) : i % groups);
        expect(w).toEqual(w.map((_, i) => Math.fround(codes[i]! - q.zero[groupOf(i)]!) * q.scale[groupOf(i)]!));
        if (granularity === 'weight') expectSameBytes(w, data);
        const x = randomWeights(80, 2, 1);
        new QuantizedLinear(q).forwardSync(x).forEach((y, o) => {
          expect(y).toBeCloseTo(
            x.reduce((sum, xi, i) => sum + xi * w[o * 80 + i]!, 0),
            4,
          );
        });

        const input = modelFile({ 'x.weight': tensorOf(data, shape) });
        const out = freshPath('out.safetensors');
        const report = await quantizeModel(input, out, { granularity, axis, nbits, metaDtype: 'float32' });
        expect(report.tensors[0]!.config).toMatchObject({ granularity, groupSize: size, axis });
        const model = await openModel(out);
        const { stats: _, ...read } = model.quantized('x');
        await model.close();
        const { stats: __, adapted: ___, ...wanted } = q;
        expect(read).toEqual(wanted);
        expect((await compareModels(input, out)).totals.relativeError).toBeCloseTo(q.stats.relativeError, 5);
      });
    });
  }
}

test('a whole matrix takes the axis on which its codes fill their words, unless one is asked for', () => {
  for (const [nbits, bytes] of [
    [4, 2560],
    [3, 2048],
    [2, 1280],
    [1, 640],
  ] as const) {
    const q = quantizeSync(weight(), { granularity: 'tensor', nbits });
    expect([q.axis, q.packed.byteLength, q.adapted]).toEqual([0, bytes, undefined]);
  }
  const asked = quantizeSync(weight(), { granularity: 'tensor', axis: 1 });
  expect([asked.axis, asked.packing, asked.adapted]).toEqual([
    1,
    '8bit_u8',
    'stored as 8bit_u8: 1 group of 5120 does not pack into 4bit_u8',
  ]);
});

test('scales and zeros as bytes go with each', () => {
  for (const granularity of GRANULARITIES) {
    const q = quantizeSync(weight(), { granularity, metaBits: 8 });
    const plain = quantizeSync(weight(), { granularity });
    const most = granularity === 'weight' ? 0.02 : plain.stats.relativeError * 1.05;
    expect(q.stats.relativeError).toBeLessThan(most);
  }
});

describe('beside groupSize', () => {
  test.each([
    [{ granularity: 'channel', groupSize: 64 }, 'channel', '64'],
    [{ granularity: 'tensor', groupSize: 64 }, 'tensor', '64'],
    [{ granularity: 'weight', groupSize: null }, 'weight', 'null'],
  ] as const)('%j is refused', (config, name, got) => {
    expect(() => quantizeSync(weight(), config)).toThrow(
      `Expected no groupSize beside granularity ${name}, which takes its place, got ${got}. Leave one of them out.`,
    );
  });

  test('what says the same may stand, as in a report', () => {
    expect(resolveQuantConfig({ granularity: 'weight', groupSize: 1 }).groupSize).toBe(1);
    for (const granularity of GRANULARITIES) {
      const resolved = resolveQuantConfig({ granularity });
      expect(resolveQuantConfig(resolved)).toEqual(resolved);
    }
    expect(() => quantizeSync(weight(), { granularity: 'row' as 'group' })).toThrow(
      `Expected granularity to be ${OPTIONS.granularity.expected}, got "row".`,
    );
  });

  test('an override of one takes the place of the other', async () => {
    const base: QuantConfig = { granularity: 'channel', nbits: 8 };
    expect(overlay(base, { groupSize: 32 })).toEqual({ nbits: 8, groupSize: 32 });
    expect(overlay({ groupSize: 32 }, { granularity: 'tensor' })).toEqual({ granularity: 'tensor' });
    const input = modelFile({ 'a.weight': randomTensor([64, 64], 1), 'b.weight': randomTensor([64, 128], 2) });
    const report = await quantizeModel(input, freshPath('out.safetensors'), {
      granularity: 'channel',
      overrides: { a: { groupSize: 32 } },
    });
    expect(report.tensors.map(({ config }) => [config.granularity, config.groupSize])).toEqual([
      ['group', 32],
      ['channel', 128],
    ]);
  });
});

test('the command line has it, and says what it did', async () => {
  const input = modelFile({ 'x.weight': randomTensor([64, 128], 1) });
  const run = (...flags: string[]) => hqq(['quantize', input, '--out', freshPath('out.safetensors'), ...flags]);
  for (const [granularity, shown] of [
    ['channel', 'whole rows'],
    ['tensor', 'whole matrices'],
    ['weight', 'group 1'],
  ] as const) {
    const { status, stderr, stdout } = await run('--granularity', granularity);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toContain(`4-bit, ${shown}`);
  }
  const wrong = await run('--granularity', 'channel', '--group-size', '64');
  expect(wrong.status).toBe(2);
  expect(wrong.stderr).toContain('Expected no groupSize beside granularity channel');
});
