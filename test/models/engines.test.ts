import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { openModel } from '../../lib/models/model.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { notLoaded } from '../../lib/schemes/engines.js';
import { failure, freshPath, modelFolder, randomTensor, type Source } from '../support/checkpoints.js';

// What each engine in Python takes (`for`), what it is refused, and what is left as it is for its sake.

type Options = QuantConfig & ModelOptions;

const CT = { to: 'compressed-tensors' } as const;

const quantizationOf = (folder: string) =>
  JSON.parse(fs.readFileSync(join(folder, 'config.json'), 'utf8')).quantization_config;

describe('engines', () => {
  const source = () => ({ 'l.x.weight': randomTensor([64, 128], 1), 'l.y.weight': randomTensor([60, 128], 2) });

  test.each<readonly [string, Options, RegExp]>([
    [
      'rows that its kernel does not take',
      { for: 'sglang' },
      /SGLang loads .*"l\.y": its kernel takes rows in multiples of 64.*60 x 128/,
    ],
    ['GPTQ with zeros', { for: 'vllm', to: 'gptq', zeroPoint: 'integer' }, /vLLM loads .*GPTQ needs symmetric/],
    ['float zeros of torchao', { for: 'vllm', to: 'torchao' }, /cuts floating-point zeros off/],
    ['bits', { for: 'sglang', nbits: 3 }, /it takes 4 or 8 bits, not 3 \(--nbits\)/],
    ['bits of GPTQ', { for: 'vllm', to: 'gptq', nbits: 3 }, /GPTQ needs 4 or 8 bits, not 3 \(--nbits\)/],
    [
      'GGUF in a folder',
      { for: 'llama.cpp' },
      /which is safetensors: .*; got gguf\. For it, let the output \(--out\) end in \.gguf\.$/,
    ],
    ['HQQ', { for: 'transformers', to: 'hqq' }, /it takes compressed-tensors, awq, gptq, torchao \(--to\), not hqq/],
  ])('refuse what they do not load, and say why: %s', async (_, options, message) => {
    const model = modelFolder([{ ...source(), 'm.layers.0.z.weight': randomTensor([64, 128], 3) }], { config: '{}' });
    const out = freshPath('out');
    const error = await failure(() => quantizeModel(model, out, options));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(message) });
    expect(fs.existsSync(out)).toBe(false);
  });

  describe('layers whose weight transformers reads as it loads', () => {
    const vision = (leaf: string) => `model.vision_tower.vision_model.encoder.layers.0.self_attn.${leaf}.weight`;
    const text = (leaf: string) => `model.language_model.layers.0.self_attn.${leaf}.weight`;
    const config = JSON.stringify({
      ...{ architectures: ['Gemma3ForConditionalGeneration'], model_type: 'gemma3' },
      ...{ text_config: { model_type: 'gemma3_text' }, vision_config: { model_type: 'siglip_vision_model' } },
    });
    const names = [vision('q_proj'), vision('out_proj'), text('q_proj'), text('o_proj')];
    const layersOf = () => Object.fromEntries(names.map((name, seed) => [name, randomTensor([64, 128], seed + 1)]));
    const written = async (options: Options, more: Source = {}) => {
      const out = freshPath('out');
      const report = await quantizeModel(modelFolder([{ ...layersOf(), ...more }], { config }), out, options);
      const { dequantize } = quantizationOf(out);
      return { layers: report.tensors.map(({ name }) => name), dense: report.dense, dequantize };
    };

    test('have it unpack them as it reads them, where all are stored alike', async () => {
      expect(await written(CT)).toEqual({ layers: names, dense: [], dequantize: true });
      expect((await written({ ...CT, include: 'model.language_model.*' })).dequantize).toBeUndefined();
      expect((await written({})).layers).toEqual(names); // Python's hqq gives them modules of their own
    });

    test('stay where norms of batches are frozen, which transformers cannot load so', async () => {
      const norms = { 'bn.running_var': randomTensor([8], 7), 'bn.weight': randomTensor([8], 8) };
      expect((await written(CT, norms)).layers).toEqual(names.slice(2));
      expect((await written({ ...CT, for: 'vllm' }, norms)).layers).toEqual(names);
      const tracked = { ...norms, 'bn.num_batches_tracked': randomTensor([1], 9) };
      expect((await written(CT, tracked)).layers).toEqual(names);
    });

    test('stay where others are stored differently, unless another engine is to load the model', async () => {
      const mixed: Options = { ...CT, overrides: { [text('o_proj')]: { nbits: 8 } } };
      const { layers, dense, dequantize } = await written(mixed);
      expect([layers, dequantize]).toEqual([names.slice(2), undefined]);
      const reason = expect.stringMatching(/^transformers 5 reads its weight as it loads.*--for vllm/);
      expect(dense).toMatchObject([{ reason }, { reason }]);
      expect((await written({ ...mixed, for: 'transformers' })).layers).toEqual(names.slice(2));
      const odd = await written({ ...CT, overrides: { [vision('out_proj')]: { nbits: 8 } } });
      expect([odd.layers, odd.dequantize]).toEqual([names.filter((name) => name !== vision('out_proj')), true]);
      const other = await written({ ...CT, overrides: { [vision('out_proj')]: { nbits: 8 } }, for: 'vllm' });
      expect([other.layers, other.dequantize]).toEqual([names, undefined]);
    });
  });

  test('keep routers of experts that have another name as they load than in files', async () => {
    const names = ['m.layers.0.mlp.experts.0.gate_proj.weight', 'm.layers.0.mlp.experts.1.gate_proj.weight'];
    const experts = Object.fromEntries(names.map((name, seed) => [name, randomTensor([64, 128], seed + 1)]));
    const out = freshPath('out');
    await quantizeModel(modelFolder([experts], { config: '{}' }), out, CT);
    expect(quantizationOf(out).ignore).toEqual(['lm_head', 're:.*[.]router$']);
  });

  test('take what they load; the format is theirs where none is asked for', async () => {
    const out = freshPath('out');
    const report = await quantizeModel(modelFolder([source()]), out, { for: 'sglang', exclude: 'l.y.weight' });
    expect(report.tensors.map(({ packing }) => packing)).toEqual(['pack-quantized']);
    const model = await openModel(out);
    expect(model.loading()).toEqual({ formats: ['compressed-tensors'], loads: ['transformers 5', 'vLLM', 'SGLang'] });
    await model.close();
  });
});

test('transformers 5 is not named for integer zeros of compressed-tensors without the two keys that it wants', async () => {
  const loads = async (change: (said: Record<string, unknown>) => void) => {
    const out = freshPath('out');
    await quantizeModel(modelFolder([{ 'l.x.weight': randomTensor([64, 128], 1) }], { config: '{}' }), out, {
      ...CT,
      zeroPoint: 'integer',
    });
    const path = join(out, 'config.json');
    const config = JSON.parse(fs.readFileSync(path, 'utf8'));
    change(config.quantization_config);
    fs.writeFileSync(path, JSON.stringify(config));
    const model = await openModel(out);
    const { loads: engines } = model.loading();
    await model.close();
    return engines;
  };
  expect(await loads(() => {})).toContain('transformers 5');
  const without = await loads((said) => {
    delete said.dequantize;
    delete said.run_compressed;
  });
  expect(without).not.toContain('transformers 5');
  expect(without).toContain('vLLM');
});

test('AWQ in the order of gemv is not tried in transformers, and taken by no other engine', () => {
  const layer = {
    name: 'l',
    scheme: 'awq',
    shape: [128, 128],
    nbits: 4,
    groupSize: 128,
    zeroPoint: 'integer',
  } as const;
  const reasons = (packing: string) =>
    ['transformers', 'vllm', 'sglang'].map((engine) => notLoaded(engine, [{ ...layer, packing }])?.reason);
  expect(reasons('awq-gemm')).toEqual([undefined, undefined, undefined]);
  expect(reasons('awq-gemv')).toEqual([
    expect.stringMatching(/was not tried/),
    ...['vllm', 'sglang'].map(() => 'it takes AWQ in the order of gemm alone'),
  ]);
});

test('of a class that an engine was seen not to load a note says so, and that engine is refused', async () => {
  const source = { 'encoder.x.weight': randomTensor([64, 64], 1) };
  const folder = modelFolder([source], {
    config: JSON.stringify({ architectures: ['SwinModel'], model_type: 'swin' }),
  });
  const include = ['encoder.x.weight'];
  const { notes } = await quantizeModel(folder, freshPath('out'), { to: 'compressed-tensors', include });
  expect(notes).toContain('transformers 5 did not load a quantized SwinModel when that was tried.');
  expect(
    (await failure(() => quantizeModel(folder, freshPath('out'), { for: 'transformers', include }))).message,
  ).toMatch(/layers that transformers 5 loads .*a quantized SwinModel did not load when that was tried/);
  expect((await quantizeModel(folder, freshPath('out'), { include })).notes.join()).not.toMatch(/SwinModel when/);
});
