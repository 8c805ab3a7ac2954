import { expect, test } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import { SHIPPED } from '../support/language-models.js';

const PROMPT = [5, 6, 7];

async function write(model: LanguageModel, maxTokens: number): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of model.generate(PROMPT, { maxTokens })) ids.push(id);
  return ids;
}

const expected = async (maxTokens: number) => write(await loadLanguageModel(SHIPPED), maxTokens);

test('close waits for the texts and calls that are under way, which end as they would', async () => {
  const [want, model] = [await expected(60), await loadLanguageModel(SHIPPED)];
  let done = 0;
  const texts = [1, 2, 3].map(async () => {
    const ids = await write(model, 60);
    done++;
    return ids;
  });
  const ids = Array.from({ length: 100 }, (_, i) => (i * 37) % 2048);
  const calls = [model.forward(ids, model.createCache()), model.perplexity(ids, { window: 16 })];
  for (const call of calls) void call.then(() => done++);
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(done).toBeLessThan(5);
  await model.close();
  expect(done).toBe(5);
  expect(await Promise.all(texts)).toEqual([want, want, want]);
});

test('a text whose reader closes the model, or is busy elsewhere, goes on when it is asked', async () => {
  const [want, model] = [await expected(20), await loadLanguageModel(SHIPPED)];
  const ids: number[] = [];
  for await (const { id } of model.generate(PROMPT, { maxTokens: 20 })) {
    ids.push(id);
    if (ids.length === 5) await model.close();
    if (ids.length > 15) await new Promise((resolve) => setTimeout(resolve, 2));
  }
  expect(ids).toEqual(want);
  await model.close();
});

test('what starts after close is an error of its own', async () => {
  const model = await loadLanguageModel(SHIPPED);
  const cache = model.createCache();
  const late = model.generate(PROMPT); // has not begun
  const closing = model.close();
  const closed = { name: 'HqqError', code: 'ERR_CLOSED', message: expect.stringContaining('the model') as string };
  for (const state of ['closing', 'closed']) {
    await expect(model.forward([1], cache), state).rejects.toMatchObject(closed);
    await expect(model.perplexity([1, 2, 3], { window: 1 }), state).rejects.toMatchObject(closed);
    await expect(model.tokenizer(), state).rejects.toMatchObject(closed);
    expect(() => model.createCache()).toThrow(expect.objectContaining(closed));
    expect(() => model.generate('x')).toThrow(expect.objectContaining(closed));
    await closing;
  }
  await expect(late.next()).rejects.toMatchObject(closed);
  expect(model.memoryUsage.total).toBeGreaterThan(0);
});

test('a text that is left ends, and a failed one does not keep the model', async () => {
  const model = await loadLanguageModel(SHIPPED);
  for await (const { id } of model.generate(PROMPT)) if (id >= 0) break;
  const controller = new AbortController();
  const failing = model.generate(PROMPT, { signal: controller.signal });
  await failing.next();
  controller.abort(new Error('enough'));
  await Promise.all([expect(failing.next()).rejects.toThrow('enough'), model.close()]);
});

test.runIf(Symbol.asyncDispose)('await using closes the model', async () => {
  const model = await loadLanguageModel(SHIPPED);
  const cache = model.createCache();
  await model[Symbol.asyncDispose]();
  await expect(model.forward([1], cache)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  expect(Object.getOwnPropertySymbols(model)).toEqual([]);
});
