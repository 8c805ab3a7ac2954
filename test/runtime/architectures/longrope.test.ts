import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadLanguageModel } from '../../../lib/runtime/load.js';
import type { LanguageModel } from '../../../lib/runtime/model.js';
import { goldenModel, writeGolden } from '../../support/golden-models.js';
import { scratchFolder } from '../../support/scratch.js';

// A text that grows past the length where longrope changes its factors is turned by the same ones throughout.

const work = scratchFolder('longrope');
const BOUND = 8;
const IDS = Array.from({ length: 12 }, (_, at) => (at * 7) % 40);
let model: LanguageModel;

beforeAll(async () => {
  const { config, ...golden } = goldenModel('phi3, longrope in a part of each head, sliding window');
  const rope = { ...(config.rope_parameters as object), original_max_position_embeddings: BOUND };
  const small = { ...config, original_max_position_embeddings: BOUND, rope_parameters: rope, num_hidden_layers: 1 };
  const folder = writeGolden(join(work, 'phi3'), { ...golden, config: { ...small, sliding_window: null } });
  model = await loadLanguageModel(folder, { head: 'float32', activations: 'float32' });
});
afterAll(() => model.close());

/** What comes most likely after each length of a text, read at once. */
async function greedy(prompt: readonly number[], count: number): Promise<{ ids: number[]; logprobs: number[] }> {
  const [text, logprobs] = [[...prompt], [] as number[]];
  for (let i = 0; i < count; i++) {
    const logits = await model.forward(text, model.createCache());
    const most = Math.max(...logits);
    logprobs.push(-Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0)));
    text.push(logits.indexOf(most));
  }
  return { ids: text.slice(prompt.length), logprobs };
}

test('a generated text that crosses the bound goes on as if it was read at once', async () => {
  const prompts = [IDS.slice(0, 5), IDS.slice(0, 8), IDS.slice(3, 6), IDS];
  const written = await Promise.all(
    prompts.map(async (prompt) => {
      const tokens = [];
      for await (const token of model.generate(prompt, { maxTokens: 9, logprobs: 0 })) tokens.push(token);
      return tokens;
    }),
  );
  for (const [i, prompt] of prompts.entries()) {
    const { ids, logprobs } = await greedy(prompt, 9);
    expect(written[i]!.map(({ id }) => id)).toEqual(ids);
    for (const [at, token] of written[i]!.entries())
      expect(Math.abs(token.logprobs!.logprob - logprobs[at]!), `text ${i}, token ${at}`).toBeLessThan(1e-5);
  }
});

test("a caller's cache is not read past the bound, and stays as it was", async () => {
  const cache = model.createCache();
  for (const id of IDS.slice(0, BOUND)) await model.forward([id], cache);
  const short = await model.forward(IDS.slice(0, BOUND), model.createCache());
  const refusal = { code: 'ERR_INVALID_ARGUMENT', message: expect.stringContaining('into an empty cache') };
  await expect(model.forward([IDS[BOUND]!], cache)).rejects.toMatchObject(refusal);
  await expect(model.forward(IDS.slice(BOUND), cache)).rejects.toMatchObject(refusal);
  await expect(model.forwardEach([IDS[BOUND]!], [cache])).rejects.toMatchObject(refusal);
  await expect(model.generate(IDS.slice(BOUND), { cache }).next()).rejects.toMatchObject(refusal);
  expect(cache.length).toBe(BOUND);
  cache.truncate(BOUND - 1);
  expectClose(await model.forward([IDS[BOUND - 1]!], cache), short);

  cache.truncate(0);
  await model.forward(IDS.slice(0, 10), cache);
  for (const id of IDS.slice(10, 11)) await model.forward([id], cache);
  const whole = await model.forward(IDS, model.createCache());
  expectClose(await model.forward(IDS.slice(11), cache), whole);

  // Cut back, it is still that of a long text.
  cache.truncate(4);
  await expect(model.forward(IDS.slice(4, 6), cache)).rejects.toMatchObject(refusal);
  expectClose(await model.forward(IDS.slice(4), cache), whole);
});

test("a generation that leaves its caller's cache at the bound says so and keeps what it read", async () => {
  const cache = model.createCache();
  const tokens: number[] = [];
  const writing = (async () => {
    for await (const { id } of model.generate(IDS.slice(0, 5), { cache, maxTokens: 9 })) tokens.push(id);
  })();
  await expect(writing).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  expect(tokens).toHaveLength(4);
  expect(cache.length).toBe(BOUND);
});

test('no text of other factors is taken for the beginning of another', async () => {
  const long = Array.from({ length: 40 }, (_, at) => (at * 11) % 40);
  for await (const _ of model.generate(long, { maxTokens: 2 }));
  for await (const { prompt } of model.generate([...long, 3], { maxTokens: 1 })) expect(prompt?.reused).toBe(0);
});

function expectClose(got: Float32Array, expected: Float32Array): void {
  const off = Math.max(...expected.map((x, i) => Math.abs(x - got[i]!)));
  expect(off).toBeLessThan(1e-5 * Math.max(...expected.map(Math.abs)));
}
