import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { planModel } from '../../../lib/allocate/plan-model.js';
import { dequantizeModel } from '../../../lib/models/dequantize.js';
import { quantizeModel } from '../../../lib/models/quantize/quantize.js';
import { Batcher } from '../../../lib/runtime/batch/batcher.js';
import { loadLanguageModel } from '../../../lib/runtime/load.js';
import { openBlockSource } from '../../../lib/runtime/source/block-source.js';
import { goldenIds, goldenModel, writeGolden } from '../../support/golden-models.js';
import { expectPartsEqual, logitsOf, openDecoder } from '../../support/runs.js';
import { scratchFolder } from '../../support/scratch.js';

// What holds of Llama holds of every architecture: bits that do not depend on company, blocks by themselves, codes.

const work = scratchFolder('architectures');
const NAMES = [
  'phi3, longrope in a part of each head, sliding window',
  'smollm3',
  'granite',
  'olmo2',
  'gemma2',
  'gemma3, cap, linear',
  'mixtral',
  'qwen3_moe, some blocks without',
];

describe.each(NAMES)('%s', (name) => {
  const golden = goldenModel(name);
  const folder = writeGolden(join(work, name.replaceAll(/\W/g, '-')), golden);
  const stacked = golden.config.num_local_experts ? writeGolden(`${folder}-stacked`, golden, 'stacked') : undefined;

  test('a text has the same logits alone and among others', async () => {
    const decoder = await openDecoder(folder, 'float32');
    const { config } = decoder;
    const texts = [1, 3, 40, 17].map((length, i) => [goldenIds(length + i).slice(i), goldenIds(12)] as const);
    const alone = [];
    for (const [prompt, tokens] of texts) alone.push(await logitsOf(new Batcher(decoder, 1), config, prompt, tokens));
    const batcher = new Batcher(decoder, 3);
    const together = await Promise.all(texts.map(([prompt, tokens]) => logitsOf(batcher, config, prompt, tokens)));
    for (const [i, logits] of together.entries()) expect(logits, `text ${i}`).toEqual(alone[i]);
  });

  test('gives the logits and inputs of the whole model part by part, to the bit', async () => {
    const texts = [[5], goldenIds(33), goldenIds(270)];
    for (const one of [folder, ...(stacked ? [stacked] : [])]) {
      const model = await loadLanguageModel(one, { head: 'float32', maxContext: 300 });
      await expectPartsEqual(model, one, texts);
      await model.close();
    }
  });

  test('its layers become codes, by what goes into them', async () => {
    const outputs = [['hqq', folder] as const, ...(stacked ? [['compressed-tensors', stacked] as const] : [])];
    for (const [to, from] of outputs) {
      const source = await openBlockSource(from);
      const layers = source.units.flat(2);
      await source.close();
      const [out, back] = [`${folder}-${to}`, `${folder}-${to}-back`];
      const report = await quantizeModel(from, out, { to, nbits: 4, importance: 'random', tokens: 128 });
      expect(report.tensors.map(({ name }) => name.replace(/\.weight$/, '')).sort()).toEqual([...layers].sort());
      expect(report.notes.join()).not.toContain('no statistics');
      await dequantizeModel(out, back);
      const logits = [];
      for (const one of [out, back, from]) {
        const model = await loadLanguageModel(one, { head: 'float32', maxContext: 64 });
        logits.push((await model.forward(goldenIds(20), model.createCache())).slice());
        await model.close();
      }
      const [codes, floats, exact] = logits as [Float32Array, Float32Array, Float32Array];
      const off = (a: Float32Array, b: Float32Array) => Math.hypot(...a.map((x, i) => x - b[i]!)) / Math.hypot(...b);
      expect(off(codes, floats)).toBeLessThan(1e-4);
      expect(off(codes, exact)).toBeLessThan(0.5);
    }
  });
});

test('experts of a block get the same bits of a plan', async () => {
  const golden = goldenModel('qwen3_moe, some blocks without');
  const options = { targetBits: 4.2, widths: [4, 5], probeTokens: 32, tokens: 64 } as const;
  const folder = writeGolden(join(work, 'planned'), golden);
  const { overrides } = await planModel(folder, options);
  const source = await openBlockSource(folder);
  const bits = source.units.map((own) => own.map((modules) => new Set(modules.map((name) => overrides![name]!.nbits))));
  await source.close();
  expect(bits.flat().every(({ size }) => size === 1)).toBe(true);
  expect(new Set(bits.flat().flatMap((of) => [...of]))).toEqual(new Set([4, 5]));
  const stacked = writeGolden(join(work, 'planned-stacked'), golden, 'stacked');
  await expect(planModel(stacked, options)).rejects.toThrow('experts that are tensors of their own');
});
