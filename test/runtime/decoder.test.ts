import { afterEach, describe, expect, test, vi } from 'vitest';
import type { SequenceArgs } from '../../binding.js';
import { activeBackend } from '../../lib/backend/index.js';
import { openModel } from '../../lib/models/model.js';
import { NEW_FLOATS } from '../../lib/runtime/blocks/scratch.js';
import type { LinearInput } from '../../lib/runtime/blocks/tap.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { SHIPPED } from '../support/language-models.js';

const someIds = (count: number, step = 37) => Array.from({ length: count }, (_, i) => (i * step) % 2048);

afterEach(() => vi.restoreAllMocks());

test('a token is one prepared job, prepared anew only when the cache has grown', async () => {
  const model = await loadLanguageModel(SHIPPED, { maxContext: 600 });
  const cache = model.createCache();
  await model.forward(someIds(200), cache);
  const backend = activeBackend();
  const [start, prepare] = [vi.spyOn(backend, 'start'), vi.spyOn(backend, 'prepare')];
  for (const id of someIds(350)) await model.forward([id], cache);
  const read = start.mock.calls.flatMap(([operation, args]) =>
    operation === 'sequence' ? (args as SequenceArgs).steps.map((step) => step.operation) : [],
  );
  expect(start).toHaveBeenCalledTimes(350);
  expect(new Set(read)).toEqual(new Set(['prepared']));
  expect(prepare).toHaveBeenCalledTimes(3); // for 256 positions, for 512, for 600
  await model.close();
});

test('a prompt is read in the memory that the one before it was read in', async () => {
  const model = await loadLanguageModel(SHIPPED, { maxContext: 300 });
  const [cache, other] = [model.createCache(), model.createCache()];
  const first = (await model.forward(someIds(250), cache)).slice();
  const taken = vi.spyOn(NEW_FLOATS, 'take');
  for (let i = 0; i < 4; i++) {
    cache.truncate(0);
    other.truncate(0);
    // Of two at once one has memory of its own.
    const shorter = i === 2 ? model.forward(someIds(200, 41), other) : undefined;
    const again = (await model.forward(someIds(250), cache)).slice();
    await shorter;
    expect(again).toEqual(first);
  }
  expect(taken).not.toHaveBeenCalled();
  await model.close();
});

describe('a tap', () => {
  /** What it is shown, copied. */
  async function tapped(ids: readonly number[], parts: readonly number[]) {
    const model = await loadLanguageModel(SHIPPED);
    const cache = model.createCache();
    const seen = new Map<string, Float32Array[]>();
    const tap = async ({ module, rows, x }: LinearInput) => {
      expect(x.length % rows).toBe(0);
      await new Promise(setImmediate); // x stays until the tap is done
      seen.set(module, [...(seen.get(module) ?? []), x.slice()]);
    };
    let [at, logits] = [0, new Float32Array(0)];
    for (const part of parts) {
      logits = (await model.forward(ids.slice(at, (at += part)), cache, { tap })).slice();
    }
    await model.close();
    return { seen, logits, model };
  }

  const joined = (arrays: readonly Float32Array[]) => Buffer.concat(arrays.map(({ buffer }) => Buffer.from(buffer)));

  test('sees what goes into every linear layer, in their order, and changes nothing', async () => {
    const ids = someIds(50);
    const { seen, logits, model } = await tapped(ids, [50]);
    const layers = [0, 1, 2].map((layer) => `model.layers.${layer}`);
    const of = (layer: string) => [
      ...['q', 'k', 'v', 'o'].map((name) => `${layer}.self_attn.${name}_proj`),
      ...['gate', 'up', 'down'].map((name) => `${layer}.mlp.${name}_proj`),
    ];
    expect([...seen.keys()]).toEqual([...layers.flatMap(of), 'lm_head']);
    const plain = await loadLanguageModel(SHIPPED);
    expect(await plain.forward(ids, plain.createCache())).toEqual(logits);
    // The head's input, and so all before it: the logits are its products.
    const { vocabSize, hiddenSize } = model.config;
    const checkpoint = await openModel(SHIPPED);
    const embedding = checkpoint.tensor('model.embed_tokens.weight');
    const [x] = seen.get('lm_head')!;
    expect(x).toHaveLength(hiddenSize);
    for (const id of [0, 7, vocabSize - 1]) {
      const product = x!.reduce((sum, value, i) => sum + value * embedding[id * hiddenSize + i]!, 0);
      expect(product).toBeCloseTo(logits[id]!, 3);
    }
    await Promise.all([plain.close(), checkpoint.close()]);
  });

  test('sees the same however the text is read, token by token too', async () => {
    const ids = someIds(12);
    const whole = await tapped(ids, [12]);
    const parts = await tapped(ids, [1, 5, 1, 1, 4]);
    for (const [module, arrays] of whole.seen) {
      const others = parts.seen.get(module)!;
      if (module === 'lm_head') expect(others.at(-1)).toEqual(arrays[0]);
      else expect(joined(others).equals(joined(arrays)), module).toBe(true);
    }
  });

  test('ends the run with what it throws, and the cache is as it was', async () => {
    const model = await loadLanguageModel(SHIPPED);
    const cache = model.createCache();
    const tap = () => {
      throw new Error('enough');
    };
    await expect(model.forward([1, 2], cache, { tap })).rejects.toThrow('enough');
    expect(cache.length).toBe(0);
    await model.close();
  });
});
