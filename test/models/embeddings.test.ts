import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bytesOf } from '../../lib/compute/floats.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { SCHEMES } from '../../lib/schemes/list.js';
import {
  CONFIG,
  encode,
  failure,
  freshPath,
  llama,
  modelFolder,
  readBack,
  type Source,
} from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

const EMBEDDING = 'model.embed_tokens.weight';
const IDS = [1, 5, 7, 300, 12, 4, 9, 2];

async function logitsOf(folder: string): Promise<Uint8Array> {
  const model = await loadLanguageModel(folder, { head: 'float32' });
  const logits = await model.forward(IDS, model.createCache(), { logits: 'all' });
  await model.close();
  return bytesOf(logits);
}

describe('embeddings', () => {
  it.each([8, 4] as const)('of %i bits are looked up, and a head is tied to them', async (embeddings) => {
    const [out, dense, same] = [freshPath('out'), freshPath('dense'), freshPath('same')];
    const report = await quantizeModel(SHIPPED, out, { embeddings, nbits: 3 });
    const row = report.tensors.find(({ name }) => name === EMBEDDING);
    expect(row?.config).toMatchObject({ nbits: embeddings, groupSize: 64 });
    expect(report.dense.map(({ reason }) => reason)).not.toContain('embedding');
    expect(report.notes.join()).toMatch(/"model\.embed_tokens\.weight" is quantized.*Python .* will not load/);

    // The same folder with the embedding as the numbers that its codes stand for.
    await dequantizeModel(out, dense);
    const [tensors, floats] = [readBack(out), readBack(dense)];
    for (const name of [...tensors.keys()]) if (name.startsWith('model.embed_tokens.')) tensors.delete(name);
    cpSync(out, same, { recursive: true });
    writeFileSync(
      join(same, 'model.safetensors'),
      encode(Object.fromEntries([...tensors, [EMBEDDING, floats.get(EMBEDDING)!]]) as Source),
    );
    expect(Buffer.compare(await logitsOf(out), await logitsOf(same))).toBe(0);

    const compared = await compareModels(SHIPPED, out);
    expect(compared.tensors.find(({ name }) => name === EMBEDDING)!.relativeError).toBeCloseTo(row!.relativeError, 6);
    const [model, plain] = [await openModel(out), await openModel(dense)];
    expect(Buffer.compare(bytesOf(model.tensor(EMBEDDING)), bytesOf(plain.tensor(EMBEDDING)))).toBe(0);
    await Promise.all([model.close(), plain.close()]);
  });

  it('are tables of tokens, taken beside what is included, unless they are excluded', async () => {
    const source: Source = { ...llama(), 'model.wpe.weight': llama()['lm_head.weight']! };
    const plan = async (options: Parameters<typeof quantizeModel>[2]) => {
      const { tensors } = await quantizeModel(modelFolder([source]), freshPath(), { ...options, dryRun: true });
      return tensors.map(({ name, config: { nbits } }) => `${name} ${nbits}`);
    };
    expect(await plan({ embeddings: 8, include: '*.0.*q_proj', nbits: 2 })).toEqual([
      'model.embed_tokens.weight 8',
      'model.layers.0.self_attn.q_proj.weight 2',
    ]);
    const overrides = { '*embed*': { nbits: 6 } } as const;
    expect(await plan({ embeddings: 4, include: '*.0.*q_proj', overrides })).toContain('model.embed_tokens.weight 6');
    const none = await failure(() => plan({ embeddings: 4, exclude: '*embed*' }));
    expect(none).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringContaining('It has none') });
    const wrong = await failure(() => plan({ embeddings: 6 as never }));
    expect(wrong.message).toBe('Expected embeddings to be one of 8, 4, got 6.');
  });

  it('are refused for a scheme that cannot hold them', async () => {
    const [hqq] = SCHEMES;
    const folder = modelFolder([llama()], { config: CONFIG });
    SCHEMES.unshift({ ...hqq!, name: 'toy', title: 'Toy', embeddings: false });
    try {
      const error = await failure(() => quantizeModel(folder, freshPath(), { embeddings: 8 }));
      expect(error).toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message:
          'Expected no embeddings (--embeddings) for Toy, which cannot hold them quantized. Formats that can: HQQ.',
      });
    } finally {
      SCHEMES.shift();
    }
  });
});
