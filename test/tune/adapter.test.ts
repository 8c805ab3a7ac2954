import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { compareModels } from '../../lib/models/compare.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { adapterFolder, mergedFolder, someAdapter } from '../support/adapters.js';
import { failure, freshPath } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(3);
const tune: TuneOptions = { data: { text }, steps: 1, tokens: 64, length: 32, batch: 2 };

test('a model is tuned with its adapter merged, and goes on with no other', async () => {
  const source = someAdapter(SHIPPED, 1, /layers\.\d\.(self_attn\.q_proj|mlp\.down_proj)/);
  const adapter = adapterFolder(source);
  const [output, merged] = [freshPath('tuned'), mergedFolder(SHIPPED, [source])];
  const own = { nbits: 4, groupSize: 64, adapter, tune } as const;
  const controller = new AbortController();
  const run = quantizeModel(SHIPPED, output, {
    ...{ ...own, signal: controller.signal },
    onProgress: ({ tuning }) => void (tuning && controller.abort(new Error('stopped'))),
  });
  expect((await failure(() => run)).message).toBe('stopped');
  const description = join(adapter, 'adapter_config.json');
  const before = readFileSync(description, 'utf8');
  writeFileSync(description, before.replace('"lora_alpha":4', '"lora_alpha":5'));
  expect((await failure(() => quantizeModel(SHIPPED, output, own))).message).toMatch(/to be the state of this run/);
  writeFileSync(description, before);
  const { importance, notes } = await quantizeModel(SHIPPED, output, own);
  expect(importance).toBe('text');
  expect(notes[0]).toMatch(/was merged into 6 tensors\.$/); // importance is that of the model with it
  expect(notes.join(' ')).toMatch(/Tuned 3 blocks/);
  for (const { relativeError } of (await compareModels(merged, output)).tensors)
    expect(relativeError).toBeLessThan(0.12);
  const apart = (await compareModels(SHIPPED, output)).tensors.filter(({ relativeError }) => relativeError > 0.15);
  expect(apart.length).toBe(6);
});
