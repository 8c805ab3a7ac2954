import { expect, test } from 'vitest';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { freshPath } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

// Folders in the formats of other engines are served as those of HQQ are.

const IDS = [1, 17, 5, 300, 42, 7, 99, 256];

async function logitsOf(folder: string): Promise<{ logits: Float32Array; ids: number[]; linears: number }> {
  const model = await loadLanguageModel(folder, { head: 'float32' });
  const logits = await model.forward(IDS, model.createCache(), { logits: 'all' });
  const ids: number[] = [];
  for await (const { id } of model.generate(IDS, { maxTokens: 5 })) ids.push(id);
  const { linears } = model.memoryUsage;
  await model.close();
  return { logits, ids, linears };
}

test.each<readonly [string, QuantConfig & ModelOptions]>([
  ['compressed-tensors, symmetric', { to: 'compressed-tensors' }],
  ['compressed-tensors, integer zeros of 3 bits', { to: 'compressed-tensors', zeroPoint: 'integer', nbits: 3 }],
  ['AWQ', { to: 'awq' }],
  ['GPTQ', { to: 'gptq' }],
  ['GPTQ, integer zeros of 8 bits', { to: 'gptq', zeroPoint: 'integer', nbits: 8 }],
  ['torchao, float zeros', { to: 'torchao' }],
  ['torchao, integer zeros of 2 bits', { to: 'torchao', zeroPoint: 'integer', nbits: 2 }],
])('a language model in %s', async (_, options) => {
  const [out, floats] = [freshPath('out'), freshPath('floats')];
  await quantizeModel(SHIPPED, out, { ...options, groupSize: 64, importance: 'none' });
  await dequantizeModel(out, floats);
  const [got, wanted] = [await logitsOf(out), await logitsOf(floats)];
  const largest = wanted.logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const apart = got.logits.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted.logits[i]!)), 0);
  expect(apart / largest).toBeLessThan(1e-5);
  expect(got.ids).toEqual(wanted.ids);
  expect(got.linears).toBeLessThan(0.4 * wanted.linears); // codes stay codes
});
