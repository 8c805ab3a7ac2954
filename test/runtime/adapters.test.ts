import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { evaluateEncoders } from '../../lib/runtime/encoder/evaluate-encoders.js';
import { evaluateModels } from '../../lib/runtime/evaluate/evaluate.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import type { GenerateOptions } from '../../lib/runtime/text/generate-options.js';
import { adapterFolder, LORA_CONFIG, mergedFolder, someAdapter } from '../support/adapters.js';
import { expectSameBytes } from '../support/bytes.js';
import { failure, freshPath, type Source, tensorOf } from '../support/checkpoints.js';
import { goldenIds, goldenModel, writeGolden } from '../support/golden-models.js';
import { partByPart } from '../support/runs.js';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('adapters');
const made = (name: string) => writeGolden(join(work, name.replaceAll(/\W/g, '-')), goldenModel(name));
const floats = { head: 'float32', maxContext: 300 } as const;

/** The largest difference of logits, as a part of the largest of them. */
async function distance(a: LanguageModel, b: LanguageModel, adapter: string | readonly string[] | undefined) {
  const ids = goldenIds(20);
  const own = await a.forward(ids, a.createCache(), { logits: 'all', ...(adapter !== undefined && { adapter }) });
  const other = await b.forward(ids, b.createCache(), { logits: 'all' });
  const size = Math.max(...other.map(Math.abs));
  return Math.max(...own.map((logit, i) => Math.abs(logit - other[i]!))) / size;
}

const NAMES = ['llama, tied', 'phi3', 'mixtral'];

describe.each(NAMES)('%s', (name) => {
  const folder = made(name);
  // A tied head is a layer of its own beside the weights, but merged into them it would change the embedding, too.
  const wanted = name.includes('tied') ? /proj/ : undefined;
  const [one, two] = [someAdapter(folder, 1, wanted), someAdapter(folder, 2, /q(kv)?_proj|down_proj|w2/)];
  const adapters = { one: adapterFolder(one), two: adapterFolder(two) };

  test('one adapter, and two, give the logits of the model that they are merged into', async () => {
    const model = await loadLanguageModel(folder, { ...floats, adapters });
    for (const [adapter, sources] of [
      ['one', [one]],
      ['two', [two]],
      [
        ['two', 'one'],
        [one, two],
      ],
    ] as const) {
      const merged = await loadLanguageModel(mergedFolder(folder, sources), floats);
      expect(await distance(model, merged, undefined)).toBeGreaterThan(0.02);
      expect(await distance(model, merged, adapter)).toBeLessThan(1e-5);
      await merged.close();
    }
    const plain = await loadLanguageModel(folder, floats);
    expect(await distance(model, plain, undefined)).toBe(0);
    await plain.close();
    await model.close();
  });

  test('texts have the same bits alone and among others with other adapters', async () => {
    const model = await loadLanguageModel(folder, { ...floats, adapters, prefixBytes: 0, maxBatch: 4 });
    const choices = [undefined, 'one', 'two', ['one', 'two'], undefined, 'one', 'two'];
    const told = async (adapter: GenerateOptions['adapter'], i: number) => {
      const all: unknown[] = [];
      const run = { adapter, maxTokens: 4 + i, logprobs: 2, temperature: 1, seed: i };
      for await (const { id, logprobs } of model.generate(goldenIds(i % 2 ? 30 : 1 + i), run)) all.push([id, logprobs]);
      return all;
    };
    const alone = [];
    for (const [i, adapter] of choices.entries()) alone.push(await told(adapter, i));
    expect(await Promise.all(choices.map(told))).toEqual(alone);
    await model.close();
  });
});

describe('a llama', () => {
  const folder = made('llama');
  const [one, two] = [someAdapter(folder, 1), someAdapter(folder, 2, /q_proj/)];
  const adapters = { one: adapterFolder(one), two: adapterFolder(two) };

  test('in codes gives what its weights, dequantized, give with the adapter merged', async () => {
    const [codes, dense] = [freshPath('codes'), freshPath('dense')];
    await quantizeModel(folder, codes, { nbits: 4, groupSize: 16, importance: 'none' });
    await dequantizeModel(codes, dense, { dtype: 'float32' });
    const merged = await loadLanguageModel(mergedFolder(dense, [one]), floats);
    const model = await loadLanguageModel(codes, { ...floats, adapters });
    expect(await distance(model, merged, 'one')).toBeLessThan(1e-5);
    const ids = goldenIds(90);
    const both = [
      await model.perplexity(ids, { window: 40, adapter: 'one' }),
      await merged.perplexity(ids, { window: 40 }),
    ];
    expect(both[0]!.nll).toBeCloseTo(both[1]!.nll, 5);
    expect((await model.perplexity(ids, { window: 40 })).nll).not.toBeCloseTo(both[1]!.nll, 3);
    await merged.close();
    await model.close();
    // What the layers round is x alone: the adapter is given x as it is.
    const rounded = await loadLanguageModel(codes, { ...floats, adapters, activations: 'int8' });
    expect(await distance(rounded, await loadLanguageModel(mergedFolder(dense, [one]), floats), 'one')).toBeLessThan(
      0.05,
    );
    await rounded.close();
  });

  test('is evaluated, and run part by part, with adapters as the whole model is', async () => {
    const ids = goldenIds(81);
    const folders = [adapters.one, adapters.two];
    const merged = mergedFolder(folder, [one, two]);
    const { original, quantized } = await evaluateModels(folder, folder, { ids, window: 40, adapter: folders });
    const [truth] = (await evaluateModels(merged, [merged], { ids, window: 40 })).quantized;
    const model = await loadLanguageModel(folder, { ...floats, adapters });
    const whole = await model.perplexity(ids, { window: 40, adapter: ['one', 'two'] });
    expect([original.perplexity, quantized[0]!.klDivergence]).toEqual([whole.perplexity, 0]);
    expect(original.nll).toBeCloseTo(truth!.nll, 5);
    // The head in parts is whole where an adapter has it.
    const { logits, parted } = await partByPart(folder, [ids], { adapters });
    const all = await model.forward(ids, model.createCache(), { logits: 'all', adapter: ['one', 'two'] });
    for (const parts of [logits, parted]) expectSameBytes(parts[0]!, all);
    await model.close();
    const option = { code: 'ERR_INVALID_OPTION' };
    expect(await failure(() => evaluateModels(folder, folder, { adapter: [1 as never] }))).toMatchObject(option);
    expect(await failure(() => evaluateEncoders(folder, folder, { adapter: 'x' }))).toMatchObject(option);
  });

  test('has the base in memory once, and says what adapters take', async () => {
    const [plain, model] = [
      await loadLanguageModel(folder, floats),
      await loadLanguageModel(folder, { ...floats, adapters }),
    ];
    const bytes = [one, two]
      .flatMap((source) => Object.values(source))
      .reduce((sum, tensor) => sum + tensor.bytes.length, 0);
    expect(plain.memoryUsage.adapters).toBe(0);
    expect(model.memoryUsage).toEqual({
      ...plain.memoryUsage,
      adapters: bytes,
      total: plain.memoryUsage.total + bytes,
    });
    expect(model.adapters).toEqual(['one', 'two']);
    await plain.close();
    await model.close();
  });

  test('what was read with one adapter is no beginning of a text with another', async () => {
    const model = await loadLanguageModel(folder, { ...floats, adapters });
    const reused = async (adapter: GenerateOptions['adapter']) => {
      let first: number | undefined;
      for await (const { prompt } of model.generate(goldenIds(60), { adapter, maxTokens: 2 })) first ??= prompt?.reused;
      return first;
    };
    for (const adapter of [undefined, 'one', 'two', ['one', 'two']]) {
      expect(await reused(adapter)).toBe(0);
      expect(await reused(adapter)).toBe(59);
    }
    expect(await reused(['two', 'one'])).toBe(59); // the same two
    const cache = model.createCache();
    await model.forward([1, 2], cache, { adapter: 'one' });
    const error = await failure(() => model.forward([3], cache));
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(error.message).toBe(
      'Expected the adapter that the cache\'s 2 positions were read with, "one", got none. A text with another one needs a cache of its own.',
    );
    const going = model.generate([3], { cache, adapter: 'two' });
    expect(await failure(() => going.next())).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    const own = (await model.forward([3], cache, { adapter: 'one' })).slice();
    cache.truncate(0);
    const other = (await model.forward([1], cache)).slice(); // emptied, it is free for another, and nothing prepared is left
    expect(other).toEqual(await model.forward([1], model.createCache()));
    expect(own).not.toEqual(other);
    await model.close();
  });

  test('names and choices are checked before anything runs', async () => {
    const option = { code: 'ERR_INVALID_OPTION' };
    for (const bad of [[], 'one', { '': 'x' }, { 'a\nb': 'x' }, { a: '' }, { a: 1 }, { ['a'.repeat(257)]: 'x' }])
      expect(await failure(() => loadLanguageModel(folder, { adapters: bad as never }))).toMatchObject(option);
    const model = await loadLanguageModel(folder, { ...floats, adapters });
    for (const [adapter, text] of [
      ['tow', 'Expected adapter to be one of "one", "two", got "tow". Did you mean "two"?'],
      [['one', 'one'], 'Expected adapter to be a name or a list of different names'],
      [1, 'Expected adapter to be a name or a list of different names, got 1.'],
    ] as const) {
      const calls = [
        () => model.generate([1], { adapter: adapter as string }),
        () => model.chat([{ role: 'user', content: 'x' }], { adapter: adapter as string }),
        () => model.forward([1], model.createCache(), { adapter: adapter as string }),
        () => model.perplexity(goldenIds(40), { window: 20, adapter: adapter as string }),
      ];
      for (const call of calls) {
        const error = await failure(call);
        expect(error).toMatchObject(option);
        expect(error.message).toContain(text);
      }
    }
    await model.close();
    const plain = await loadLanguageModel(folder, floats);
    expect((await failure(() => plain.generate([1], { adapter: 'one' }))).message).toContain('loaded without any');
    await plain.close();
    const signal = AbortSignal.abort(new Error('enough'));
    expect((await failure(() => loadLanguageModel(folder, { adapters, signal }))).message).toBe('enough');
  });

  const at = 'base_model.model.model.layers.0.self_attn.q_proj';
  const pair = (a: readonly number[], b: readonly number[], value = 0.5, name = at): Source => ({
    [`${name}.lora_A.weight`]: tensorOf(new Float32Array(a[0]! * a[1]!).fill(value), a),
    [`${name}.lora_B.weight`]: tensorOf(new Float32Array(b[0]! * b[1]!).fill(value), b),
  });

  test.each([
    [{ ...LORA_CONFIG, use_dora: true }, pair([2, 32], [32, 2]), 'DoRA (use_dora)'],
    [LORA_CONFIG, { ...pair([2, 32], [32, 2]), [`${at}.lora_magnitude_vector`]: tensorOf([1], [1]) }, 'DoRA'],
    [LORA_CONFIG, pair([2, 31], [32, 2]), 'of [32, 31]'],
    [LORA_CONFIG, pair([2, 32], [32, 2], 1, at.replace('layers.0', 'layers.9')), 'It is of another model.'],
    [LORA_CONFIG, pair([0, 32], [32, 0]), 'which is empty'],
    [LORA_CONFIG, pair([2, 32], [32, 2], NaN), 'to be finite, got NaN at [0, 0]'],
    [
      { ...LORA_CONFIG, lora_alpha: 1e38 },
      pair([2, 32], [32, 2], 100),
      'times the scale 5e+37, got Infinity at [0, 0]',
    ],
  ] as const)('%j is refused by name', async (config, source, text) => {
    const error = await failure(() => loadLanguageModel(folder, { adapters: { bad: adapterFolder(source, config) } }));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT' });
    expect(error.message).toContain(text);
  });
});
