import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { failure, freshPath, llama, modelFolder, numbersOf, readBack } from '../support/checkpoints.js';

// What HQQ has quantized becomes what other engines load, without the float model.

type Options = QuantConfig & ModelOptions;

async function hqqFolder(options: Options = {}): Promise<string> {
  const out = freshPath('hqq');
  await quantizeModel(modelFolder([llama()]), out, { groupSize: 32, ...options });
  return out;
}

async function floatsOf(folder: string): Promise<ReturnType<typeof readBack>> {
  const out = freshPath('floats');
  await dequantizeModel(folder, out);
  return readBack(join(out, 'model.safetensors'));
}

describe('a folder of HQQ', () => {
  test.each([8, 6, 5, 4, 3, 2, 1] as const)('of %i bits keeps its codes in torchao, to the bit', async (nbits) => {
    const from = await hqqFolder({ nbits, metaDtype: 'float32' });
    const out = freshPath('torchao');
    const report = await quantizeModel(from, out, { to: 'torchao', scaleDtype: 'float32' });
    expect(report.totals.relativeError).toBeLessThan(1e-6);
    expect(report.notes.join()).toMatch(
      /was quantized with HQQ: \d+ layers keep their codes, scales and zeros\. Errors are/,
    );
    const [a, b] = [await floatsOf(from), await floatsOf(out)];
    expect([...b.keys()].sort()).toEqual([...a.keys()].sort());
    for (const [name, tensor] of a) {
      // Zeros are stored less the middle code: one more rounding, of float32.
      const [x, y] = [numbersOf(tensor), numbersOf(b.get(name)!)];
      const largest = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const apart = x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i]!)), 0);
      expect(apart, name).toBeLessThanOrEqual(1e-6 * largest);
    }
    const [p, q] = [await openModel(from), await openModel(out)];
    for (const { name, quantized } of q.tensors) {
      if (quantized)
        expect(quantized).toMatchObject({
          nbits,
          groupSize: p.tensors.find((one) => one.name === name)!.quantized!.groupSize,
        });
    }
    await Promise.all([p.close(), q.close()]);
  });

  test.each<readonly [string, Options]>([
    ['compressed-tensors', { to: 'compressed-tensors' }],
    ['compressed-tensors, integer zeros', { to: 'compressed-tensors', zeroPoint: 'integer' }],
    ['AWQ', { to: 'awq' }],
    ['GPTQ', { to: 'gptq' }],
    ['torchao with other groups', { to: 'torchao', groupSize: 64 }],
  ])('is fitted anew where its zeros do not go: %s', async (_, options) => {
    const from = await hqqFolder();
    const out = freshPath('out');
    const report = await quantizeModel(from, out, options);
    const { relativeError } = report.totals;
    expect(relativeError).toBeGreaterThan(0.005);
    expect(relativeError).toBeLessThan(0.12);
    expect(report.notes.join()).toMatch(/were fitted anew to the numbers that they were/);
    const back = freshPath('back');
    await dequantizeModel(from, back);
    expect((await compareModels(back, out)).totals.relativeError).toBeCloseTo(relativeError, 5);
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8').replace('Infinity', '1'));
    expect(config.quantization_config.quant_method).toBe(options.to);
    const dry = await quantizeModel(from, freshPath(), { ...options, dryRun: true });
    expect(dry.tensors.map(({ name }) => name)).toEqual(report.tensors.map(({ name }) => name));
  });

  test('with columns as groups, or scales in bytes, is read all the same', async () => {
    for (const options of [{ axis: 0 }, { metaBits: 8, axis: 1 }] as const) {
      const from = await hqqFolder(options);
      const { totals, notes } = await quantizeModel(from, freshPath(), { to: 'torchao' });
      expect(totals.relativeError).toBeLessThan(0.1);
      expect(notes.join()).toMatch(/was quantized with HQQ/);
    }
  });

  test('of bits that a format has not says whose they are', async () => {
    const from = await hqqFolder({ nbits: 3 });
    const { message } = await failure(() => quantizeModel(from, freshPath(), { to: 'awq' }));
    expect(message).toMatch(/^Expected nbits to be 4 for AWQ, got 3\. The model has its own from when .*--nbits/);
    await quantizeModel(from, freshPath(), { to: 'awq', nbits: 4 });
  });

  test('of mixed bits keeps those of each layer that is not excluded', async () => {
    const overrides = { '*.q_proj': { nbits: 8 }, '*.down_proj': { nbits: 3, groupSize: 64 } } as const;
    const from = await hqqFolder({ overrides });
    const bitsOf = ({ tensors }: Awaited<ReturnType<typeof quantizeModel>>) =>
      new Set(tensors.map(({ name, config }) => `${name.split('.').at(-2)} ${config.nbits} ${config.groupSize}`));
    const excluded = await quantizeModel(from, freshPath(), { to: 'torchao', exclude: '*.down_proj' });
    expect(bitsOf(excluded)).toContain('q_proj 8 32');
    expect(bitsOf(excluded)).toContain('k_proj 4 32');
    expect([...bitsOf(excluded)].join()).not.toContain('down_proj');
    const included = await quantizeModel(from, freshPath(), { to: 'torchao', include: '*.down_proj' });
    expect(bitsOf(included)).toEqual(new Set(['down_proj 3 64']));
    const overridden = { to: 'torchao', overrides: { '*.q_proj': { nbits: 5 } }, exclude: '*.k_proj' } as const;
    expect(bitsOf(await quantizeModel(from, freshPath(), overridden))).toContain('q_proj 5 32');
    const awq = await quantizeModel(from, freshPath(), { to: 'awq', exclude: ['*.q_proj', '*.down_proj'] });
    expect(bitsOf(awq)).toContain('k_proj 4 32');
    const refused = await failure(() => quantizeModel(from, freshPath(), { to: 'awq' }));
    expect(refused.message).toMatch(
      /^Expected nbits to be 4 for AWQ.*proj\.weight has its own.*\(nbits, --nbits; overrides, --override\), or exclude/,
    );
    const typo = await failure(() =>
      quantizeModel(from, freshPath(), { to: 'torchao', overrides: { x: { nbits: 5 } } }),
    );
    expect(typo.message).toMatch(/^Expected overrides \(--override\) "x"/);
  });

  test('of bits that the format has not is refused, and so is what is HQQ already', async () => {
    const from = await hqqFolder({ nbits: 1 });
    const error = await failure(() => quantizeModel(from, freshPath(), { to: 'awq' }));
    expect(error.message).toMatch(/^Expected nbits to be 4 for AWQ/);
    const again = await failure(() => quantizeModel(from, freshPath()));
    expect(again.message).toMatch(/is quantized already/);
  });
});
