import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { KvCache } from '../../lib/runtime/blocks/cache.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import { encode } from '../support/checkpoints.js';
import { parseTensors } from '../support/golden.js';
import { modelFolder, readTokenIds, SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('runtime');
const stories = modelFolder('small/stories260K');
const books = modelFolder('llama-2.3m-books');

async function withModel<T>(folder: string, use: (model: LanguageModel) => Promise<T>, options = {}): Promise<T> {
  const model = await loadLanguageModel(folder, options);
  try {
    return await use(model);
  } finally {
    await model.close();
  }
}

async function quantized(source: string, name: string, nbits: 8 | 4 | 3): Promise<string> {
  const folder = join(work, `${name}-${nbits}bit`);
  await quantizeModel(source, folder, { nbits, force: true });
  return folder;
}

/** The likeliest token, and how far the next is behind it. */
function best(logits: Float32Array): { id: number; gap: number } {
  let [id, next] = [0, -Infinity];
  for (let i = 1; i < logits.length; i++) {
    if (logits[i]! > logits[id]!) [next, id] = [logits[id]!, i];
    else if (logits[i]! > next) next = logits[i]!;
  }
  return { id, gap: logits[id]! - next };
}

/** Greedy ids, with the gap between the best two logits at each. */
async function greedy(model: LanguageModel, prompt: string, count: number): Promise<{ id: number; gap: number }[]> {
  const cache = model.createCache();
  let logits = await model.forward(await (await model.tokenizer()).encode(prompt), cache);
  const chosen: { id: number; gap: number }[] = [];
  while (chosen.length < count) {
    const { id: first, gap } = best(logits);
    chosen.push({ id: first, gap });
    if (cache.length < model.maxContext) logits = await model.forward([first], cache);
    else break;
  }
  return chosen;
}

describe.runIf(stories)('stories260K', () => {
  test.each([
    [128, 4.372034],
    [256, 4.168747],
    [512, 4.07852],
  ])('has the reference perplexity in windows of %i', async (window, want) => {
    const ids = readTokenIds(stories!, 'tinystories_val_50k.ids.json');
    const { perplexity, tokens } = await withModel(stories!, (model) => model.perplexity(ids, { window }));
    expect(tokens).toBe(Math.floor((ids.length - 1) / window) * window);
    expect(perplexity).toBeCloseTo(want, 5);
  });

  test.each([
    ['bf16', 4.170181],
    ['f16', 4.168598],
  ])('has that of its weights in %s', async (type, want) => {
    const folder = join(work, type);
    mkdirSync(folder);
    for (const file of ['config.json', 'tokenizer.json']) copyFileSync(join(stories!, file), join(folder, file));
    copyFileSync(join(stories!, `model.${type}.safetensors`), join(folder, 'model.safetensors'));
    const ids = readTokenIds(stories!, 'tinystories_val_50k.ids.json');
    const { perplexity } = await withModel(folder, (model) => model.perplexity(ids, { window: 256 }));
    expect(perplexity).toBeCloseTo(want, 5);
  });

  test('tokenizes as the reference does, and gives the text back', async () => {
    const text = readFileSync(join(stories!, 'tinystories_val_50k.txt'), 'utf8');
    await withModel(stories!, async (model) => {
      const tokenizer = await model.tokenizer();
      expect(await tokenizer.encode(text)).toEqual(readTokenIds(stories!, 'tinystories_val_50k.ids.json'));
      expect(await tokenizer.decode(await tokenizer.encode('Once upon a time'))).toBe('Once upon a time');
    });
  });

  test('tells the story that it is known for', async () => {
    const text = await withModel(stories!, async (model) => {
      let whole = '';
      for await (const token of model.generate('Once upon a time', { maxTokens: 30 })) whole += token.text;
      return whole;
    });
    expect(text).toMatch(/^, there was a little girl named Lily\. She loved to play outside in the park\./);
  });
});

describe.runIf(books)('llama-2.3m-books in float32', () => {
  const all = books ? readTokenIds(books, 'alice.ids.json') : [];
  let exact: Promise<number> | undefined;

  test('has the reference perplexity', async () => {
    const { perplexity, nll, tokens } = await withModel(books!, (model) => model.perplexity(all));
    expect(tokens).toBe(46_464);
    expect(nll).toBeCloseTo(4.063396, 5);
    expect(perplexity).toBeCloseTo(58.171534, 3);
  });

  test('has it on a text that it has not seen', async () => {
    const ids = readTokenIds(books!, 'heldout.ids.json');
    const { perplexity, nll, tokens } = await withModel(books!, (model) => model.perplexity(ids));
    expect(tokens).toBe(40_192);
    expect(nll).toBeCloseTo(3.895919, 5);
    expect(perplexity).toBeCloseTo(49.201245, 3);
  });

  test.each([
    [8, 0.01],
    [4, 0.03],
  ] as const)('keeps it with %i bits, within %f', async (nbits, tolerance) => {
    const folder = await quantized(books!, 'books', nbits);
    const part = all.slice(0, 8000); // the reference for all of it is above
    const of = (path: string) => withModel(path, async (model) => (await model.perplexity(part)).perplexity);
    exact ??= of(books!);
    expect(Math.abs((await of(folder)) / (await exact) - 1)).toBeLessThan(tolerance);
  });

  test('tokenizes as the reference does', async () => {
    const text = readFileSync(join(books!, 'alice.txt'), 'utf8');
    expect(await withModel(books!, async (model) => (await model.tokenizer()).encode(text))).toEqual(all);
  });
});

describe('the shipped model', () => {
  test('tells where the measurement of a perplexity stands, and ends it with the error of who is told', async () => {
    const ids = Array.from({ length: 100 }, (_, i) => 3 + ((i * 37) % 1000));
    const told: number[][] = [];
    await withModel(SHIPPED, async (model) => {
      const window = 32;
      await model.perplexity(ids, {
        window,
        onProgress: ({ tokensDone, tokensTotal }) => told.push([tokensDone, tokensTotal]),
      });
      const onProgress = () => {
        throw new Error('of the caller');
      };
      await expect(model.perplexity(ids, { window, onProgress })).rejects.toThrow('of the caller');
    });
    expect(told).toEqual([32, 64, 96].map((done) => [done, 96]));
  });

  test('writes the same text from 8-bit weights, but for ties', async () => {
    const eight = await quantized(SHIPPED, 'shipped', 8);
    const prompts = ['The sea was', 'And the Lord said', 'Alice'];
    for (const prompt of prompts) {
      const [exact, close] = await Promise.all(
        [SHIPPED, eight].map((folder) => withModel(folder, (model) => greedy(model, prompt, 100))),
      );
      const differs = exact!.findIndex(({ id }, i) => id !== close![i]!.id);
      // What 8 bits change of a logit; after the first such place, the texts are about different things.
      if (differs >= 0) expect(exact![differs]!.gap, `${prompt}: token ${differs}`).toBeLessThan(0.05);
      else expect(exact).toHaveLength(100);
    }
  });

  test('reads a prompt at once as it reads it token by token', async () => {
    await withModel(SHIPPED, async (model) => {
      const ids = Array.from({ length: 60 }, (_, i) => (i * 37) % 2048);
      const whole = await model.forward(ids, model.createCache(), { logits: 'all' });
      const cache = model.createCache();
      for (const [i, id] of ids.entries()) {
        const logits = await model.forward([id], cache);
        expect(logits).toEqual(whole.subarray(i * 2048, (i + 1) * 2048));
      }
      expect(cache.length).toBe(60);
      cache.truncate(30);
      expect(await model.forward(ids.slice(30), cache)).toEqual(whole.subarray(59 * 2048));
    });
  });

  test('reads prompts that are longer than a job', async () => {
    await withModel(
      SHIPPED,
      async (model) => {
        const ids = Array.from({ length: 600 }, (_, i) => (i * 37) % 2048);
        const all = await model.forward(ids, model.createCache(), { logits: 'all' });
        expect(await model.forward(ids, model.createCache())).toEqual(all.subarray(599 * 2048));
      },
      { maxContext: 600 },
    );
  });

  test('gives the same bits for any number of threads', async () => {
    const ids = Array.from({ length: 100 }, (_, i) => (i * 31) % 2048);
    const [one, seven] = await Promise.all(
      [1, 7].map((threads) =>
        withModel(SHIPPED, async (model) => (await model.forward(ids, model.createCache())).slice(), { threads }),
      ),
    );
    expect(one).toEqual(seven);
  });

  test('generates several texts at once, each as if alone', async () => {
    await withModel(SHIPPED, async (model) => {
      const write = async (prompt: string) => {
        const ids: number[] = [];
        for await (const { id } of model.generate(prompt, { maxTokens: 20, temperature: 0.9, seed: 5 })) ids.push(id);
        return ids;
      };
      const prompts = ['The', 'A whale', 'In the beginning', 'And', 'He'];
      const alone: number[][] = [];
      for (const prompt of prompts) alone.push(await write(prompt));
      expect(await Promise.all(prompts.map(write))).toEqual(alone);
      expect(new Set(alone.map(String)).size).toBe(prompts.length);
    });
  });

  test('stops where it is told to', async () => {
    await withModel(SHIPPED, async (model) => {
      const collect = async (options: object) => {
        const tokens = [];
        for await (const token of model.generate('And the Lord said', { maxTokens: 40, ...options }))
          tokens.push(token);
        return { tokens, text: tokens.map(({ text }) => text).join(''), finish: tokens.at(-1)!.finish };
      };
      const free = await collect({});
      expect(free.tokens).toHaveLength(40);
      expect(free.finish).toBe('length');
      const word = free.text.slice(30, 38);
      const stopped = await collect({ stop: ['never in there', word] });
      expect(stopped.text).toBe(free.text.slice(0, free.text.indexOf(word)));
      expect(stopped.finish).toBe('stop');
      const crowded = await collect({ maxTokens: 1000 });
      expect(crowded.finish).toBe('length'); // the context is full
      const ids = await (await model.tokenizer()).encode('And the Lord said');
      expect(crowded.tokens).toHaveLength(model.maxContext - ids.length + 1);
    });
  });

  test('can be aborted, and left', async () => {
    await withModel(SHIPPED, async (model) => {
      const controller = new AbortController();
      const read = async () => {
        for await (const { id } of model.generate('A', { maxTokens: 100, signal: controller.signal }))
          if (id >= 0) controller.abort();
      };
      await expect(read()).rejects.toMatchObject({ name: 'AbortError' });
      for await (const { id } of model.generate('A', { maxTokens: 100 })) if (id >= 0) break;
      const cache = model.createCache();
      await expect(model.forward([1, 2], cache, { signal: AbortSignal.abort() })).rejects.toMatchObject({
        name: 'AbortError',
      });
      expect(cache.length).toBe(0);
      await expect(Promise.all([model.forward([1], cache), model.forward([2], cache)])).rejects.toThrow('idle');
    });
  });

  test('refuses what it cannot compute', async () => {
    await withModel(SHIPPED, async (model) => {
      const cache = model.createCache();
      for (const ids of [[], [-1], [2048], [1.5], 'text']) {
        await expect(model.forward(ids as number[], cache)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
      }
      const wrong = (given: unknown, options?: unknown) => model.forward([1], given as never, options as never);
      for (const other of [undefined, null, {}, []]) {
        const message = "Expected cache to be one of the model's, from createCache(), got ";
        await expect(wrong(other)).rejects.toThrow(
          expect.objectContaining({
            code: 'ERR_INVALID_ARGUMENT',
            message: expect.stringContaining(message) as string,
          }),
        );
      }
      const { config } = model;
      const strange = new KvCache({ ...config, kvHeads: 2 * config.kvHeads }, 128);
      await expect(wrong(strange)).rejects.toThrow('got that of another model.');
      for (const [options, message] of [
        [{ logit: 'all' }, 'Unknown option "logit". Did you mean "logits"?'],
        [null, 'got null'],
        [{ signal: 5 }, 'Expected signal to be an AbortSignal, got 5.'],
        [{ tap: 5 }, 'Expected tap to be a function, got 5.'],
      ] as const) {
        await expect(wrong(cache, options)).rejects.toThrow(
          expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) as string }),
        );
      }
      for (const options of [null, { maxToken: 3 }, { signal: 5 }]) {
        expect(() => model.generate('x', options as never)).toThrow(
          expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
        );
      }
      await expect(model.forward(new Array<number>(129).fill(1), cache)).rejects.toThrow('maxContext');
      await expect(model.perplexity([1, 2, 3])).rejects.toThrow('at least 129 tokens');
      for (const prompt of [undefined, null, 3, {}, new Float32Array(2)]) {
        const message = /^Expected the prompt to be a text or a list of token ids, got /;
        expect(() => model.generate(prompt as unknown as string)).toThrow(
          expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(message) as string }),
        );
      }
      expect(() => model.generate([])).toThrow('got []');
      expect(() => model.generate([1, 2048])).toThrow('got 2048');
      expect(() => model.generate('x', { maxTokens: 0 })).toThrow('maxTokens');
      for (const option of [{ topK: 5 }, { topP: 0.9 }, { minP: 0.1 }, { seed: 1 }]) {
        const [name] = Object.keys(option);
        expect(() => model.generate('x', option)).toThrow(
          expect.objectContaining({
            code: 'ERR_INVALID_OPTION',
            message: expect.stringContaining(`with ${name}:`) as string,
          }),
        );
        expect(() => model.generate('x', { ...option, temperature: 0 })).not.toThrow();
      }
      expect(() => model.generate('x', { topK: 0, topP: 1, minP: 0, seed: undefined })).not.toThrow();
      expect(() => model.generate('x', { temprature: 1 } as object)).toThrow('Did you mean "temperature"?');
    });
    await expect(loadLanguageModel(SHIPPED, { activations: 'int4' as 'int8' })).rejects.toThrow('one of float32, int8');
    await expect(loadLanguageModel(join(SHIPPED, 'model.safetensors'))).rejects.toThrow('config.json');
  });

  test('refuses a folder whose config and tensors do not fit', async () => {
    const config = JSON.parse(readFileSync(join(SHIPPED, 'config.json'), 'utf8')) as object;
    const variant = (name: string, change: object) => {
      const folder = join(work, name);
      cpSync(SHIPPED, folder, { recursive: true });
      writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, ...change }));
      return loadLanguageModel(folder);
    };
    await expect(variant('more-layers', { num_hidden_layers: 4 })).rejects.toThrow('no tensor model.layers.3');
    await expect(variant('fewer-layers', { num_hidden_layers: 2 })).rejects.toThrow('tensors that the architecture');
    await expect(variant('wider', { intermediate_size: 513 })).rejects.toThrow('513 x 256');
    await expect(variant('biased', { attention_bias: true })).rejects.toThrow('q_proj.bias');
    const file = join(work, 'headless', 'config.json');
    await expect(variant('headless', { head_dim: 0 })).rejects.toThrow(`${file}: Expected head_dim to be an integer`);
    const generation = join(work, 'headless', 'generation_config.json');
    writeFileSync(generation, '{"eos_token_id": -1}');
    writeFileSync(file, JSON.stringify(config));
    await expect(loadLanguageModel(join(work, 'headless'))).rejects.toThrow(`${generation}: Expected eos_token_id`);
  });
});

test.each([
  ['GPTQ', 'qweight', 'I32', { g_idx: 'I32', scales: 'F16', qzeros: 'I32' }],
  ['fine-grained FP8', 'weight', 'F8_E4M3', { weight_scale_inv: 'F32' }],
  ['bitsandbytes 4-bit', 'weight', 'U8', { 'weight.absmax': 'F32', 'weight.quant_map': 'F32' }],
] as const)('a folder that %s has quantized is told as such', async (tool, codes, type, others) => {
  const folder = join(work, `by-${tool}`);
  cpSync(SHIPPED, folder, { recursive: true });
  const tensors = parseTensors(readFileSync(join(SHIPPED, 'model.safetensors')));
  const of = (dtype: string) => ({
    dtype,
    shape: [1],
    bytes: new Uint8Array(/^F16/.test(dtype) ? 2 : /32$/.test(dtype) ? 4 : 1),
  });
  const changed = [...tensors].flatMap(([name, tensor]) => {
    const module = name.replace(/\.weight$/, '');
    if (!module.endsWith('q_proj')) return [[name, tensor] as const];
    return Object.entries({ [codes]: type, ...others }).map(([key, dtype]) => [`${module}.${key}`, of(dtype)] as const);
  });
  writeFileSync(join(folder, 'model.safetensors'), encode(Object.fromEntries(changed)));
  await expect(loadLanguageModel(folder)).rejects.toMatchObject({
    code: 'ERR_CHECKPOINT_CONTENT',
    message: expect.stringMatching(
      new RegExp(
        `is quantized already: \\d+ layers hold ${tool} weights .* what hqq has quantized\\. Quantize the float`,
      ),
    ),
  });
});
