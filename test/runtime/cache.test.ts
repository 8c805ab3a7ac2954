import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { KvCache } from '../../lib/runtime/blocks/cache.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import { runFixture } from '../child.js';
import { changedModel, narrowModel, SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';
import { racesOf } from '../support/share.js';

const work = scratchFolder('cache');
const VOCABULARY = 2048;
const someIds = (count: number, step = 37) => Array.from({ length: count }, (_, i) => (i * step) % VOCABULARY);

const sameBytes = (a: Float32Array, b: Float32Array) =>
  Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;

/** Logits of every position, where the text is read in parts of these lengths, again and again. */
async function inParts(model: LanguageModel, ids: readonly number[], parts: readonly number[]): Promise<Float32Array> {
  const cache = model.createCache();
  const all = new Float32Array(ids.length * VOCABULARY);
  for (let at = 0, i = 0; at < ids.length; i++) {
    const end = Math.min(at + parts[i % parts.length]!, ids.length);
    all.set(await model.forward(ids.slice(at, end), cache, { logits: 'all' }), at * VOCABULARY);
    at = end;
  }
  return all;
}

const narrow = () => (existsSync(join(work, 'narrow')) ? join(work, 'narrow') : narrowModel(work, 'narrow'));

const windowed = (sliding_window: number) =>
  [`with a window of ${sliding_window}`, { architectures: ['MistralForCausalLM'], sliding_window }] as const;

test.each([
  ['as it is', undefined],
  ['in heads of 8', { num_attention_heads: 8, num_key_value_heads: 4, head_dim: 8 }],
  ...[1, 15, 16, 17].map(windowed),
] as const)('the model %s remembers the same, however its text is read', async (name, change) => {
  // What is remembered does not depend on how wide a model is.
  const folder = change === undefined ? SHIPPED : changedModel(work, name, change, narrow());
  const model = await loadLanguageModel(folder, { maxContext: 301 });
  const ids = someIds(301);
  const whole = await model.forward(ids, model.createCache(), { logits: 'all' });
  // Past the first capacity, to a limit that is no multiple of a block.
  for (const parts of [
    [1, 16, 3, 47],
    [255, 1, 2, 1],
  ]) {
    expect(sameBytes(await inParts(model, ids, parts), whole), `parts of ${parts.join()}`).toBe(true);
  }
});

test.each([1, 2, 16, 17])('a context of %i can be filled, cut and filled again', async (maxContext) => {
  const model = await loadLanguageModel(SHIPPED, { maxContext });
  const [ids, others] = [someIds(maxContext), someIds(maxContext, 91)];
  const whole = await model.forward(ids, model.createCache(), { logits: 'all' });
  const cache = model.createCache();
  await model.forward(others, cache);
  await expect(model.forward([1], cache)).rejects.toThrow('maxContext');
  const kept = Math.floor(maxContext / 2);
  cache.truncate(0);
  await model.forward([...ids.slice(0, kept), ...others.slice(kept)], cache);
  cache.truncate(kept);
  for (const id of ids.slice(kept)) await model.forward([id], cache);
  expect(await model.forward(ids.slice(-1), (cache.truncate(maxContext - 1), cache))).toEqual(
    whole.subarray((maxContext - 1) * VOCABULARY),
  );
});

test('a token that was aborted is read again as if for the first time', async () => {
  const model = await loadLanguageModel(SHIPPED);
  const ids = someIds(40);
  const want = (await model.forward(ids, model.createCache())).slice();
  const cache = model.createCache();
  let aborted = 0;
  for (const [i, id] of ids.entries()) {
    const controller = new AbortController();
    const wrong = model.forward([(id + 1000) % VOCABULARY], cache, { signal: controller.signal });
    if (i % 2 === 0) await new Promise(setImmediate);
    controller.abort();
    await wrong.then(
      () => cache.truncate(i),
      () => aborted++,
    );
    expect(cache.length).toBe(i);
    await model.forward([id], cache);
  }
  expect(aborted).toBeGreaterThan(0);
  expect(sameBytes(cache.logits, want)).toBe(true);
});

test('a cache serves any model of the same shape, each with its own weights', async () => {
  const eight = join(work, 'eight');
  await quantizeModel(SHIPPED, eight, { nbits: 8 });
  const [one, two] = await Promise.all([SHIPPED, eight].map((folder) => loadLanguageModel(folder)));
  const ids = someIds(12);
  const fresh = async () => {
    const cache = two!.createCache();
    await one!.forward(ids, cache);
    return cache;
  };
  const want = (await two!.forward([5], await fresh())).slice();
  const used = await fresh();
  await one!.forward([5], used); // its steps were read with the first model's weights
  used.truncate(12);
  expect(sameBytes(await two!.forward([5], used), want)).toBe(true);
});

test('a cache keeps no weights of a model that is gone', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const cacheOf = async (model: LanguageModel) => {
    const cache = model.createCache();
    await model.forward([1], cache);
    return cache;
  };
  const use = async () => {
    const model = await loadLanguageModel(SHIPPED);
    const { memoryUsage } = model;
    return { cache: await cacheOf(model), total: memoryUsage.total };
  };
  const caches: KvCache[] = [];
  const external = () => process.memoryUsage().arrayBuffers;
  const before = external();
  let total = 0;
  for (let i = 0; i < 4; i++) {
    const used = await use();
    caches.push(used.cache);
    total += used.total;
  }
  for (let i = 0; i < 10; i++) {
    collect();
    await new Promise(setImmediate);
  }
  const kept = caches.reduce((sum, { bytes }) => sum + bytes, 0);
  expect(external() - before - kept).toBeLessThan(total / 4);
});

test('room is made for as many positions as are expected, and far ahead beyond these', async () => {
  await using model = await loadLanguageModel(SHIPPED, { maxContext: 512 });
  const cache = model.createCache();
  const perPosition = model.createCache().neededBytes / 256;
  cache.expected = 40;
  await model.forward(someIds(8), cache);
  expect(cache.bytes).toBe(48 * perPosition);
  await model.forward(someIds(41), cache);
  expect(cache.bytes).toBe((48 + 256) * perPosition);
});

test('a text may take more memory than one array can', async () => {
  const model = await loadLanguageModel(SHIPPED);
  const config = { ...model.config, layers: 9, windows: new Array<number>(9).fill(0) };
  const cache = new KvCache(config, 1 << 20);
  await cache.extend(500_000, async () => {}); // 4.6 GB, none of it touched
  expect(cache.bytes).toBeGreaterThan(2 ** 32);
  const places = Array.from({ length: 9 }, (_, i) => cache.layer(i)).flatMap(({ segments }) =>
    segments.flatMap(({ keys, values }) => [keys, values]),
  );
  expect(places.at(-1)!.length).toBe(cache.layer(8).segments[0]!.capacity * 128);
  places.forEach((array, i) => array.fill(i + 1, -1));
  expect(places.map((array) => array.at(-1))).toEqual(places.map((_, i) => i + 1));
});

test('memory does not grow from text to text', async () => {
  const { status, stdout, stderr } = await runFixture('generate-memory.mjs', [process.env.CI ? '400' : '2000']);
  expect(status, stderr).toBe(0);
  expect(Number(/grew (-?\d+)/.exec(stdout)?.[1]), stdout).toBeLessThan(40);
  // Of the weights' two slabs, up to 4 MiB are there as addresses alone: what lies around large pages.
  expect(Number(/left (\d+)/.exec(stdout)?.[1]), stdout).toBeLessThan(20);
});

test('workers are terminated while they write texts', async () => {
  const workers = String(racesOf(8));
  const { status, signal, stdout, stderr } = await runFixture('generate-workers.mjs', [workers]);
  expect({ status, signal }, stderr).toEqual({ status: 0, signal: null });
  expect(stdout).toContain('alive');
});
