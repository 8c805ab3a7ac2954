import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { openFolderModel } from '../../lib/models/folder-model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { configOf, loadLanguageModel } from '../../lib/runtime/load.js';
import { readWeights } from '../../lib/runtime/weights/read.js';
import { CodedTable, groupOf } from '../../lib/runtime/weights/table.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('head');
const coded = join(work, 'coded');
const [VOCABULARY, WIDTH] = [2048, 256];
/** Of the shipped model: tied, `[2048, 256]`. */
const TABLE = { floats: 4 * VOCABULARY * WIDTH, bytes: VOCABULARY * WIDTH * (1 + 8 / 64) };

const ids = Array.from({ length: 257 }, (_, i) => (5 + i * 37) % VOCABULARY);

beforeAll(() => quantizeModel(SHIPPED, coded, { nbits: 4, importance: 'none' }));

async function measure(folder: string, options: object) {
  await using model = await loadLanguageModel(folder, options);
  return { ...model.memoryUsage, ...(await model.perplexity(ids, { window: 64 })) };
}

describe('the head', () => {
  test('is 8 bits where layers are quantized, with the embedding in the same codes', async () => {
    const [int8, float] = [await measure(coded, {}), await measure(coded, { head: 'float32' })];
    expect(int8.total - int8.linears).toBe(TABLE.bytes + float.total - float.linears - TABLE.floats);
    expect(Math.abs(int8.perplexity / float.perplexity - 1)).toBeLessThan(0.002);
    expect(int8.perplexity).not.toBe(float.perplexity);
  });

  test('is float32 where they are not, and 8 bits where that is asked for', async () => {
    const [plain, int8] = [await measure(SHIPPED, {}), await measure(SHIPPED, { head: 'int8', activations: 'int8' })];
    expect(plain.total - int8.total).toBe(TABLE.floats - TABLE.bytes);
    expect(Math.abs(int8.perplexity / plain.perplexity - 1)).toBeLessThan(0.002);
    await expect(loadLanguageModel(SHIPPED, { head: 'int4' as 'int8' })).rejects.toThrow('one of float32, int8');
  });

  test('has groups that divide its width, and is float32 where none do', () => {
    expect([64, 256, 96, 100, 16, 40, 17, 22, 8].map(groupOf)).toEqual([64, 64, 48, 50, 16, 40, 17, 22, undefined]);
  });

  test('gives the rows that the codes stand for, in any order', async () => {
    const model = await openFolderModel(SHIPPED);
    const config = configOf(model);
    const { embedding } = await readWeights(model, config, { head: 'int8', activations: 'float32', threads: 2 });
    await model.close();
    expect(embedding).toBeInstanceOf(CodedTable);
    const { layer } = embedding as CodedTable;
    const whole = await layer.dequantize();
    const some = [2047, 0, 15, 16, 17, 2032, 16];
    const rows = new Float32Array(some.length * WIDTH);
    embedding.read(some, rows);
    for (const [i, id] of some.entries())
      expect(rows.subarray(i * WIDTH, (i + 1) * WIDTH)).toEqual(whole.subarray(id * WIDTH, (id + 1) * WIDTH));
  });

  test('reads an embedding that the file has in codes from these', async () => {
    const folder = join(work, 'embedded');
    await quantizeModel(SHIPPED, folder, { nbits: 4, importance: 'none', embeddings: 4 });
    const [stored, float] = [await measure(folder, {}), await measure(folder, { head: 'float32' })];
    expect(stored.total).toBeLessThan(float.total - (6 * VOCABULARY * WIDTH) / 2);
    expect(stored.perplexity / float.perplexity).toBeCloseTo(1, 5); // the same numbers
  });
});
