import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { compareModels } from '../../lib/models/compare.js';
import { openModel } from '../../lib/models/model.js';
import { failure, freshPath } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

/** The shipped model, quantized with HQQ. */
async function quantized(options: object): Promise<string> {
  const folder = freshPath('hqq');
  await quantizeModel(SHIPPED, folder, { importance: 'none', solver: 'minmax', ...options });
  return folder;
}

/** The codes of a layer, `[out, in]`: those that its numbers are. */
async function codesOf(path: string, layer: string): Promise<number[]> {
  const model = await openModel(path);
  const { scale, zero, groupSize } = await model.loadQuantized(layer);
  const numbers = model.tensor(layer);
  await model.close();
  return Array.from(numbers, (number, i) => {
    const group = Math.floor(i / groupSize);
    return Math.round(number / scale[group]! + zero[group]!) || 0; // no -0
  });
}

describe('a folder of HQQ as a GGUF file', () => {
  it('keeps its codes, of 4 and of 5 bits, and says which error that adds', async () => {
    const folder = await quantized({ overrides: { '*.mlp.*': { nbits: 5, groupSize: 32 } } });
    const file = freshPath('x.gguf');
    const report = await quantizeModel(folder, file, { to: 'gguf' });
    expect(report.requantized).toBe(true);
    expect(report.importance).toBe('none');
    expect(new Set(report.tensors.map(({ packing }) => packing))).toEqual(new Set(['Q4_1', 'Q5_1']));
    expect(report.totals.relativeError).toBeGreaterThan(1e-5);
    expect(report.totals.relativeError).toBeLessThan(1e-3);
    expect(report.notes.join()).toMatch(/quantized with HQQ: 21 layers keep their codes, .*float16\. Errors are what/);
    const left = report.dense.find(({ name }) => name === 'token_embd.weight');
    expect(left?.reason).toBe('not quantized, as it was');
    for (const [ours, theirs] of [
      ['model.layers.1.self_attn.o_proj', 'blk.1.attn_output'],
      ['model.layers.2.mlp.down_proj', 'blk.2.ffn_down'],
    ] as const)
      expect(await codesOf(file, theirs)).toEqual(await codesOf(folder, ours));
    const k = await codesOf(folder, 'model.layers.0.self_attn.k_proj');
    const turned = await codesOf(file, 'blk.0.attn_k');
    expect(turned).not.toEqual(k);
    const [cols, half] = [256, 16];
    expect(turned.slice(cols, 2 * cols)).toEqual(k.slice(half * cols, (half + 1) * cols));
    const [a, b] = await Promise.all([compareModels(SHIPPED, folder), compareModels(SHIPPED, file)]);
    expect(b.totals.relativeError).toBeCloseTo(a.totals.relativeError, 4);
  });

  it.each([
    [
      '8 bits',
      { nbits: 8 },
      {},
      /multiple of 32 along the input, .* got 8 bits in groups of 64 for "blk\.0\.attn_q\.weight"/,
    ],
    ['groups of 16', { groupSize: 16 }, {}, /got 4 bits in groups of 16 for/],
    ['groups of columns', { axis: 0 }, {}, /got 4 bits in groups that are no parts of rows for/],
    [
      'a type',
      {},
      { type: 'q4_k' },
      /quantized with HQQ already\. .* its codes are kept .* \(requantize, --requantize\)/,
    ],
  ])('refuses %s, and writes nothing', async (_, how, options, message) => {
    const file = freshPath('x.gguf');
    const error = await failure(async () => quantizeModel(await quantized(how), file, options));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(message);
    expect(fs.existsSync(file)).toBe(false);
  });
});

describe('what is quantized already', () => {
  it('is fitted anew where that is asked for', async () => {
    const [file, again] = [freshPath('x.gguf'), freshPath('y.gguf')];
    await quantizeModel(await quantized({ nbits: 8 }), file, { type: 'q8_0', requantize: true, importance: 'none' });
    const report = await quantizeModel(file, again, { type: 'q4_0', requantize: true, importance: 'none' });
    expect(report.requantized).toBe(true);
    expect(report.notes.join()).toMatch(/with ggml's blocks: 22 layers were fitted anew/);
    // Q4_K has as many bits and weights of a scale as Q4_0, and other numbers.
    await quantizeModel(SHIPPED, file, { type: 'q4_k', importance: 'none', force: true });
    const alike = await quantizeModel(file, freshPath('w.gguf'), {
      type: 'q4_0',
      requantize: true,
      importance: 'none',
    });
    expect(alike.notes.join()).toMatch(/with ggml's blocks: 22 layers were fitted anew/);
    const [once, twice] = await Promise.all([
      quantizeModel(SHIPPED, freshPath('z.gguf'), { type: 'q4_0', importance: 'none' }),
      compareModels(SHIPPED, again),
    ]);
    expect(once.requantized).toBe(false);
    expect(twice.totals.relativeError).toBeGreaterThan(0.9 * once.totals.relativeError);
    expect(twice.totals.relativeError).toBeLessThan(1.1 * once.totals.relativeError);
  });
});
