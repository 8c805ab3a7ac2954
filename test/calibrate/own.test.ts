import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ownTexts } from '../../lib/calibrate/own.js';
import { loadLanguageModel, loadMerged } from '../../lib/runtime/load.js';
import { type ExpertLayout, goldenModel, writeGolden } from '../support/golden-models.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('own');

/** Weights of a folder, and a perplexity of it, with 8 bits where floats take more than so many bytes. */
async function measure(folder: string, floatBytes: number | undefined) {
  await using model = await loadMerged(folder, undefined, { threads: 2 }, floatBytes);
  const ids = Array.from({ length: 65 }, (_, i) => (i * i * 7 + 3) % Math.min(model.config.vocabSize, 2000));
  return { ...model.memoryUsage, ...(await model.perplexity(ids, { window: 32 })) };
}

describe('a large model that writes its own text', () => {
  test('has 8 bits where its floats would take more than they may', async () => {
    await using plain = await loadLanguageModel(SHIPPED);
    const floats = plain.memoryUsage.total;
    const norms = 4 * 256 * 7;
    const [all, under, over] = [
      await measure(SHIPPED, undefined),
      await measure(SHIPPED, floats + norms),
      await measure(SHIPPED, floats + norms - 1),
    ];
    expect(all.total).toBe(floats);
    expect(under).toEqual(all);
    expect(over.total).toBeLessThan(0.3 * all.total);
    expect(over.perplexity).not.toBe(all.perplexity);
    expect(Math.abs(over.perplexity / all.perplexity - 1)).toBeLessThan(0.005);
  });

  test.each([
    ['qwen2', 'apart'],
    ['granite, biases everywhere', 'apart'],
    ['mixtral', 'apart'],
    ['mixtral', 'stacked'],
  ] as [string, ExpertLayout][])('keeps biases and experts: %s, %s', async (name, experts) => {
    const folder = writeGolden(join(scratch, `${name}-${experts}`), goldenModel(name), experts);
    const [plain, coded] = [await measure(folder, undefined), await measure(folder, 0)];
    expect(coded.total).toBeLessThan(0.6 * plain.total);
    expect(Math.abs(coded.perplexity / plain.perplexity - 1)).toBeLessThan(0.02);
  });

  test('writes the same for the same seed and any number of threads', async () => {
    const write = (threads: number, floatBytes?: number) =>
      ownTexts(SHIPPED, { ...{ tokens: 200, seed: 1, threads, floatBytes }, signal: undefined, progress: () => {} });
    const texts = await write(1, 0);
    expect(await write(2, 0)).toEqual(texts);
    // Floats that take no more than they may stay as they are; in 8 bits it writes others.
    const plain = await write(2, Infinity);
    expect(await write(2)).toEqual(plain);
    expect(texts).not.toEqual(plain);
  });
});
