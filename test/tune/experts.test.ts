import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { QuantConfig } from '../../lib/matrix/config.js';
import type { QuantizedTensor } from '../../lib/matrix/weight.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { loadTensors } from '../../lib/models/tensors.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { goldenModel, writeGolden } from '../support/golden-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('tune-experts');
const tune: TuneOptions = { steps: 4, tokens: 96, length: 16, batch: 3 };
const options = { nbits: 3, groupSize: 8, tune } as const satisfies QuantConfig & ModelOptions;
const bytesOf = (folder: string) => readFileSync(join(folder, 'model.safetensors'));

describe('tuning models of experts', () => {
  test('brings blocks nearer to those of floats, with the same bytes for any number of threads', async () => {
    const folder = writeGolden(join(scratch, 'mixtral'), goldenModel('mixtral'));
    const outputs = [1, 3].map((threads) => join(scratch, `mixtral ${threads}`)) as [string, string];
    const { notes } = await quantizeModel(folder, outputs[0], { ...options, threads: 1 });
    expect(notes.join(' ')).toMatch(/Tuned 3 blocks in 4 steps each: .* are [1-9]\d(\.\d)? % of what they were/);
    expect(notes.join(' ')).not.toMatch(/in no block/);
    await quantizeModel(folder, outputs[1], { ...options, threads: 3 });
    expect(bytesOf(outputs[1]).equals(bytesOf(outputs[0]))).toBe(true);
  });

  test('also where they lie in one tensor, with the codes that those of tensors of their own have', async () => {
    const outputs = ['stacked', 'apart'].map((layout) => join(scratch, `${layout} tuned`)) as [string, string];
    for (const [i, layout] of (['stacked', 'apart'] as const).entries()) {
      const folder = writeGolden(join(scratch, layout), goldenModel('qwen3_moe'), layout);
      const run = { ...options, to: 'compressed-tensors', nbits: 4, tune: { ...tune, rate: 0.03 } } as const;
      const { notes } = await quantizeModel(folder, outputs[i]!, run);
      expect(notes.join(' ')).toMatch(/Tuned 3 blocks in 4 steps each: .* are \d\d(\.\d)? % of what they were/);
      expect(notes.join(' ')).not.toMatch(/not tuned/);
    }
    const [stacked, apart] = [await loadTensors(outputs[0]), await loadTensors(outputs[1])];
    expect(Object.keys(stacked).sort()).toEqual(Object.keys(apart).sort());
    for (const [name, tensor] of Object.entries(apart)) expect(stacked[name], name).toEqual(tensor);
  });

  test('those that no token reached keep what the solver found', async () => {
    const folder = writeGolden(join(scratch, 'few'), goldenModel('qwen3_moe'));
    const own = { ...options, importance: 'none' } as const;
    const [plain, tuned] = [join(scratch, 'few plain'), join(scratch, 'few tuned')];
    await quantizeModel(folder, plain, { ...own, tune: false });
    const few = { ...tune, steps: 8, tokens: 8, length: 4, batch: 1 };
    const { notes } = await quantizeModel(folder, tuned, { ...own, tune: few });
    const said = /No token reached (\d+) layers of experts: what the solver found stays there\./.exec(notes.join(' '));
    const idle = Number(said![1]);
    expect(idle % 3).toBe(0); // gate, up and down of an expert
    const [before, after] = [await loadTensors(plain), await loadTensors(tuned)];
    const layers = Object.keys(before).filter((name) => name.includes('.experts.'));
    const codes = (tensors: typeof before, name: string) => String((tensors[name] as QuantizedTensor).packed);
    const same = layers.filter((name) => codes(before, name) === codes(after, name));
    expect(layers.length).toBe(3 * 6 * 3);
    expect(same.length).toBeGreaterThanOrEqual(idle);
  });

  test('scales and zeros of all layers together', async () => {
    const folder = writeGolden(join(scratch, 'whole'), goldenModel('mixtral'));
    const run = { ...options, tune: { ...tune, steps: 1, model: 1 } };
    const { notes } = await quantizeModel(folder, join(scratch, 'whole tuned'), run);
    expect(notes.join(' ')).toMatch(/scales and zeros of all layers together in 1 step: .* are off by [\d.e-]+ nats/);
  });
});
