import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { readStats } from '../lib/compute/arguments.js';
import { choosing, takeSample } from '../lib/compute/auto.js';
import { dequantizeSync, quantize, quantizeSync } from '../lib/compute/quantize.js';
import { sampleOf } from '../lib/compute/sample.js';
import type { QuantConfig } from '../lib/matrix/config.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { quantizeModel } from '../lib/models/quantize/quantize.js';
import { AUTO_VALUES } from '../lib/solvers/auto.js';
import { freshPath, modelFile, tensorOf } from './support/checkpoints.js';
import { expectFailure, hqq } from './support/cli.js';
import { SHIPPED } from './support/language-models.js';
import { gaussian, randomOf } from './support/random.mjs';
import { scratchFolder } from './support/scratch.js';

const scratch = scratchFolder('auto');
const draw = gaussian(randomOf(7), 0.02);
const weight = { data: Float32Array.from({ length: 256 * 1024 }, draw), shape: [256, 1024] } as const;
const outliers = { data: weight.data.map((w, i) => (i % 611 === 0 ? 40 * w : w)), shape: weight.shape };

describe('options that are auto', () => {
  test('are the best of those that are tried, on a matrix that is its own sample', async () => {
    const small = { data: outliers.data.subarray(0, 128 * 512), shape: [128, 512] } as const;
    for (const config of [
      { solver: 'hqq', lpNorm: 'auto' },
      { solver: 'hqq', beta: 'auto', nbits: 2 },
      { solver: 'joint', lpNorm: 'auto', nbits: 3, axis: 0 },
      { lambda: 'auto', nbits: 3 },
      { solver: 'admm', rho: 'auto', nbits: 2 },
      { solver: 'admm', rho: 'auto', nbits: 8, axis: 0 },
    ] as const satisfies readonly QuantConfig[]) {
      const q = await quantize(small, config);
      const name = (['lpNorm', 'beta', 'lambda', 'rho'] as const).find((option) => option in config)!;
      const errors = AUTO_VALUES[name]('solver' in config ? config.solver : 'hqs').map(
        (value) => quantizeSync(small, { ...config, [name]: value }).stats.meanSquaredError,
      );
      const { chosen, ...rest } = q;
      expect(Object.keys(chosen!)).toEqual([name]);
      expect(q.stats.meanSquaredError).toBe(Math.min(...errors));
      expect(quantizeSync(small, { ...config, ...chosen })).toEqual(rest);
    }
  });

  test('look at errors as importance weighs them', () => {
    const small = { data: outliers.data.subarray(0, 256 * 512), shape: [256, 512] } as const;
    const importance = Float32Array.from({ length: 512 }, (_, i) => (i % 5 === 0 ? 300 : 1));
    const weighed = (config: QuantConfig) => {
      const restored = dequantizeSync(quantizeSync(small, config, { importance }));
      return restored.reduce((sum, w, i) => sum + importance[i % 512]! * (w - small.data[i]!) ** 2, 0);
    };
    let differ = 0;
    for (const axis of [1, 0] as const) {
      for (const [name, solver] of [
        ['rho', 'admm'],
        ['beta', 'hqq'],
        ['lpNorm', 'joint'],
      ] as const) {
        const config = { solver, nbits: 2, groupSize: 32, axis } as const;
        const chosen = quantizeSync(small, { ...config, [name]: 'auto' }, { importance }).chosen![name];
        const values = AUTO_VALUES[name](solver);
        const errors = values.map((value) => weighed({ ...config, [name]: value }));
        expect(chosen).toBe(values[errors.indexOf(Math.min(...errors))]);
        if (chosen !== quantizeSync(small, { ...config, [name]: 'auto' }).chosen![name]) differ++;
      }
    }
    expect(differ).toBeGreaterThan(0);
  });

  test('leave alone what the solver does not read', () => {
    const { chosen } = quantizeSync(weight, { solver: 'joint', lambda: 'auto', rho: 'auto' });
    expect(chosen).toEqual({ lambda: 0.001, rho: 0.75 });
  });

  test('take the fewest iterations that come near the least error', () => {
    const { chosen, stats } = quantizeSync(weight, { iterations: 'auto', nbits: 2 });
    const most = quantizeSync(weight, { iterations: 80, nbits: 2 }).stats.meanSquaredError;
    expect(chosen!.iterations).toBeLessThan(80);
    expect(stats.meanSquaredError / most).toBeLessThan(1.002);
    const fewer = AUTO_VALUES.iterations('joint').filter((count) => count < chosen!.iterations!);
    for (const iterations of fewer) {
      expect(quantizeSync(weight, { iterations, nbits: 2 }).stats.meanSquaredError / most).toBeGreaterThan(1.0002);
    }
  });

  test('are the same on every backend, for any number of threads', () => {
    const config = resolveQuantConfig({ solver: 'hqq', iterations: 'auto', beta: 'auto', lpNorm: 'auto', nbits: 3 });
    expect(config.auto).toEqual(['lpNorm', 'beta', 'iterations']);
    const sample = sampleOf({ rows: 4096, cols: 64, groups: 4096, size: 64 }, 1);
    const matrix = {
      sample,
      weights: takeSample(sample, outliers.data, 'float32'),
      dtype: 'float32',
      axis: 1,
    } as const;
    const all = availableBackends().flatMap((name) =>
      [1, 3].map((threads) => {
        const trials = choosing(config, { ...matrix, threads });
        let trial = trials.next();
        for (; !trial.done; trial = trials.next()) {
          openBackend(name).run('quantize', trial.value);
          expect(readStats(trial.value.stats).squaredError).toBeGreaterThan(0);
        }
        return trial.value;
      }),
    );
    for (const one of all) expect(one).toEqual(all[0]);
    expect(all[0]).not.toHaveProperty('auto');
    expect(all[0]!.chosen).toEqual(['lpNorm', 'beta', 'iterations']);
  });

  test('weights that are no numbers, and other words, are refused as ever', async () => {
    const bad = { data: weight.data.map((w, i) => (i === 5 ? Number.NaN : w)), shape: weight.shape };
    await expect(quantize(bad, { iterations: 'auto' })).rejects.toThrow(/NaN at row 0, column 5/);
    expect(() => quantizeSync(weight, { iterations: 'automatic' as 'auto' })).toThrow(/\], or auto, got "automatic"/);
    expect(() => quantizeSync(weight, { kappa: 'auto' as never })).toThrow(/Expected kappa to be a number/);
  });
});

describe('the sample', () => {
  test('is spread over the matrix, in whole groups', () => {
    for (const axis of [0, 1] as const) {
      for (const [groups, size] of [
        [100_000, 64],
        [2048, 64],
        [2049, 64],
        [3, 50],
        [5, 1_000_000],
        [400_000, 1],
      ] as const) {
        const [rows, cols] = axis === 1 ? [groups, size] : [size, groups];
        const sample = sampleOf({ rows, cols, groups, size }, axis);
        const count = sample.groups.reduce((sum, range) => sum + range.count, 0);
        expect([sample.rows, sample.cols]).toEqual(axis === 1 ? [count, size] : [size, count]);
        expect(sample.weights.reduce((sum, range) => sum + range.count, 0)).toBe(count * size);
        if (groups * size <= 131_072) expect(count).toBe(groups);
        else expect(count * size).toBeGreaterThan(Math.min(groups, 131_072 / size) * size * 0.9);
        for (const [i, { at, count: length }] of sample.groups.entries()) {
          expect(at + length).toBeLessThanOrEqual(sample.groups[i + 1]?.at ?? groups);
        }
      }
    }
  });

  test('of a layer in chunks is that of its whole matrix, of either axis and way to lie', async () => {
    const [out, features] = [1536, 2048]; // a chunk is 2 million weights
    // ordinary in the first chunk, with outliers in the second
    const data = Float32Array.from(
      { length: out * features },
      (_, i) => (i > 2 ** 21 && i % 61 === 0 ? 9 : 1) * draw(),
    );
    const path = modelFile({ 'layer.weight': tensorOf(data, [out, features]) });
    for (const axis of [0, 1] as const) {
      const config = { solver: 'hqq', lpNorm: 'auto', beta: 'auto', nbits: 2, axis } as const;
      const report = await quantizeModel(path, freshPath(), { ...config, importance: 'none' });
      const { chosen } = quantizeSync({ data, shape: [out, features] }, config);
      expect(report.tensors[0]!.config).toMatchObject({ ...chosen, chosen: ['lpNorm', 'beta'] });
      const first = { data: data.subarray(0, 2 ** 21), shape: [1024, features] } as const;
      if (axis === 1) expect(quantizeSync(first, config).chosen).not.toEqual(chosen);
    }
  });
});

test('of a model they are chosen layer by layer, and reported', async () => {
  const report = await quantizeModel(SHIPPED, join(scratch, 'one'), {
    iterations: 'auto',
    importance: 'none',
    threads: 1,
  });
  await quantizeModel(SHIPPED, join(scratch, 'two'), { iterations: 'auto', importance: 'none', threads: 3 });
  const bytes = (name: string) => readFileSync(join(scratch, name, 'model.safetensors'));
  expect(bytes('one').equals(bytes('two'))).toBe(true);
  expect(report.config.auto).toEqual(['iterations']);
  for (const { config } of report.tensors) {
    expect(config.chosen).toEqual(['iterations']);
    expect(config.auto).toBeUndefined();
    expect(AUTO_VALUES.iterations('joint')).toContain(config.iterations);
  }
  const other = { to: 'compressed-tensors', iterations: 'auto', importance: 'none' } as const;
  const engines = await quantizeModel(SHIPPED, join(scratch, 'engines'), other);
  for (const { config } of engines.tensors) expect(config.chosen).toEqual(['iterations']);
  const args = ['quantize', SHIPPED, '--out', join(scratch, 'three'), '--iterations', 'auto', '--importance', 'none'];
  const { stdout, status } = await hqq(args, {});
  expect(status).toBe(0);
  expect(stdout).toMatch(/iterations \d+ \(chosen\)/);
  expect(bytes('three').equals(bytes('one'))).toBe(true);
  expectFailure(await hqq([...args.slice(0, 3), join(scratch, 'four'), '--beta', 'x'], {}), 2, /or auto, got "x"/);
});
