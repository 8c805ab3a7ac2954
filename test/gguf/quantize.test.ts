import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { failure, freshPath, randomWeights } from '../support/checkpoints.js';
import { floatTensor, type GgufPair, ggufFile, pairBytes } from '../support/gguf.js';

const PAIRS: readonly GgufPair[] = [
  ['general.architecture', 'string', 'llama'],
  ['general.file_type', 'u32', 0],
  ['llama.block_count', 'u32', 8],
  ['tokenizer.ggml.tokens', 'strings', ['<s>', 'a']],
];
const NAMES = ['attn_q', 'attn_v', 'attn_output', 'ffn_down'].flatMap((name) =>
  [0, 3, 7].map((block) => `blk.${block}.${name}`),
);
const TENSORS = [
  floatTensor('token_embd.weight', [64, 512], randomWeights(64 * 512, 1)),
  floatTensor('output_norm.weight', [512], randomWeights(512, 2)),
  ...NAMES.map((name, i) => floatTensor(`${name}.weight`, [32, 512], randomWeights(32 * 512, 3 + i))),
  floatTensor('blk.0.attn_q.bias', [32], randomWeights(32, 30)),
  floatTensor('blk.0.odd.weight', [16, 96], randomWeights(16 * 96, 31)),
  floatTensor('blk.0.strange.weight', [4, 20], randomWeights(80, 32)),
];

function model(): string {
  const path = freshPath('in.gguf');
  fs.writeFileSync(path, ggufFile(PAIRS, TENSORS));
  return path;
}

describe('a GGUF file', () => {
  it('becomes one of blocks, with its pairs, names and order, and back', async () => {
    const input = model();
    const [out, back] = [freshPath('out.gguf'), freshPath('back.gguf')];
    const report = await quantizeModel(input, out, { type: 'q4_k' });
    expect(report.totals.relativeError).toBeLessThan(0.09);
    expect(report.tensors.map(({ packing }) => packing)).toEqual([...Array(13).fill('Q4_K'), 'Q5_0']);
    expect(report.dense.map(({ reason }) => reason)).toContain('rows of 20, which fill no blocks of 32');

    const opened = await openModel(out);
    expect(opened.names).toEqual(TENSORS.map(({ name }) => name));
    expect(opened.config).toMatchObject({ 'general.file_type': 15, 'general.quantization_version': 2 });
    const kept = Buffer.concat([PAIRS[2]!, PAIRS[3]!].map(pairBytes));
    expect(fs.readFileSync(out).includes(kept)).toBe(true);
    const layer = opened.linear('blk.0.attn_q');
    const weights = opened.tensor('blk.0.attn_q');
    const x = randomWeights(512, 77);
    const bias = opened.tensor('blk.0.attn_q.bias');
    const y = layer.forwardSync(x);
    for (let row = 0; row < 32; row++) {
      const exact = x.reduce((sum, value, i) => sum + value * weights[row * 512 + i]!, bias[row]!);
      expect(y[row]).toBeCloseTo(exact, 5);
    }
    await opened.close();

    const comparison = await compareModels(input, out);
    expect(comparison.totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    expect(comparison.dense.different).toEqual([]);
    await dequantizeModel(out, back, { dtype: 'float32' });
    expect((await compareModels(input, back)).totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    const again = await openModel(back);
    expect(again.names).toEqual(TENSORS.map(({ name }) => name));
    expect(again.tensor('blk.0.attn_q')).toEqual(weights);
    expect(again.config).toMatchObject({ 'general.file_type': 0 });
    await again.close();
  });

  it.each([
    [
      'Q4_K_M',
      15,
      {
        'blk.0.attn_v': 'Q6_K',
        'blk.3.attn_v': 'Q6_K',
        'blk.7.ffn_down': 'Q6_K',
        'blk.0.attn_q': 'Q4_K',
        token_embd: 'Q6_K',
      },
    ],
    ['Q2_K', 10, { 'blk.0.attn_v': 'Q3_K', 'blk.3.ffn_down': 'Q3_K', 'blk.0.attn_q': 'Q2_K', token_embd: 'Q6_K' }],
    [
      'Q3_K_M',
      12,
      { 'blk.0.attn_v': 'Q5_K', 'blk.7.attn_v': 'Q4_K', 'blk.0.attn_output': 'Q4_K', 'blk.0.attn_q': 'Q3_K' },
    ],
  ])('takes the mix %s of llama.cpp', async (type, id, types) => {
    const out = freshPath('out.gguf');
    const { tensors } = await quantizeModel(model(), out, { type });
    const made = Object.fromEntries(tensors.map(({ name, packing }) => [name.replace('.weight', ''), packing]));
    expect(made).toMatchObject(types);
    const opened = await openModel(out);
    expect(opened.config).toMatchObject({ 'general.file_type': id });
    await opened.close();
  });

  it('takes other bits where overrides say so, and the type that nbits is', async () => {
    const { tensors } = await quantizeModel(model(), freshPath('out.gguf'), {
      ...{ nbits: 5, exclude: 'token_embd', overrides: { '*.ffn_down': { nbits: 8 } }, dryRun: true },
    });
    const types = new Map(tensors.map(({ name, packing }) => [name, packing]));
    expect(types.get('blk.0.ffn_down.weight')).toBe('Q8_0');
    expect(types.get('blk.0.attn_q.weight')).toBe('Q5_K');
    expect(types.has('token_embd.weight')).toBe(false);
  });

  it('leaves a matrix without numbers as it is', async () => {
    const input = freshPath('in.gguf');
    const empty = floatTensor('blk.0.none.weight', [0, 64], new Float32Array());
    fs.writeFileSync(input, ggufFile(PAIRS, [...TENSORS.slice(0, 3), empty]));
    const report = await quantizeModel(input, freshPath('out.gguf'), { type: 'q8_0' });
    expect(report.dense).toContainEqual(expect.objectContaining({ name: 'blk.0.none.weight', reason: 'no numbers' }));
  });

  it('refuses what blocks have not', async () => {
    const input = model();
    const message = async (options: object) =>
      (await failure(() => quantizeModel(input, freshPath(), options))).message;
    expect(await message({ type: 'q9_k' })).toMatch(/Expected type to be one of q4_0, .*Q4_K_M.*got "q9_k"/);
    expect(await message({ groupSize: 64 })).toMatch(/no groupSize for GGUF/);
    expect(await message({ solver: 'hqq' })).toMatch(/solver to be joint or minmax for GGUF/);
    const unread = { lpNorm: 0.7, beta: 5, lambda: 0.001, rho: 'auto', kappa: 1, iterations: 1 };
    for (const [name, value] of Object.entries(unread)) {
      const refused = `Expected no ${name} for GGUF, whose blocks are fitted by a search that does not read it, got ${value}.`;
      expect(await message({ type: 'q4_0', [name]: value, importance: 'none' })).toContain(refused);
      expect(await message({ overrides: { '*.ffn_down': { [name]: value } } })).toContain(refused);
    }
    expect(await message({ nbits: 1 })).toMatch(/nbits to be one of 8, 6, 5, 4, 3, 2 for GGUF/);
    const out = freshPath('out.gguf');
    await quantizeModel(input, out, { type: 'q8_0', solver: 'minmax' });
    const again = await failure(() => quantizeModel(out, freshPath(), { type: 'q4_k' }));
    expect(again.message).toMatch(
      /is quantized already: 14 layers in ggml's blocks \(Q8_0\)\. .* \(requantize, --requantize\)/,
    );
    const huge = freshPath('huge.gguf');
    fs.writeFileSync(huge, ggufFile(PAIRS, [floatTensor('a.weight', [1, 256], new Float32Array(256).fill(1e30))]));
    const large = await failure(() => quantizeModel(huge, freshPath('x.gguf')));
    expect(large.message).toMatch(/"a\.weight" to fit into Q4_K, whose scales are float16/);
  });
});
