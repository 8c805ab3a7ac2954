import { expect } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { openFolderModel } from '../../lib/models/folder-model.js';
import type { Batcher } from '../../lib/runtime/batch/batcher.js';
import { KvCache } from '../../lib/runtime/blocks/cache.js';
import type { LinearInput } from '../../lib/runtime/blocks/tap.js';
import type { LanguageModelConfig } from '../../lib/runtime/config/model-config.js';
import { Decoder } from '../../lib/runtime/decoder.js';
import { configOf } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import { openBlockSource } from '../../lib/runtime/source/block-source.js';
import { readWeights } from '../../lib/runtime/weights/read.js';
import { expectSameBytes } from './bytes.js';

// Ways to run a language model, which must all give the same bits.

/** What computes for a model in a folder. */
export async function openDecoder(folder: string, activations: 'float32' | 'int8'): Promise<Decoder> {
  const model = await openFolderModel(folder);
  const config = configOf(model);
  const weights = await readWeights(model, config, { activations, head: undefined, threads: 2 });
  await model.close();
  return new Decoder(config, weights, { backend: activeBackend(), threads: 2 });
}

/** Logits after the prompt and after each of some tokens that follow it. */
export async function logitsOf(
  batcher: Batcher,
  config: LanguageModelConfig,
  prompt: readonly number[],
  tokens: readonly number[],
) {
  const [seat, cache] = [batcher.enter(), new KvCache(config, 1024)];
  const all = [(await seat.read(prompt, cache, undefined)).slice()];
  for (const id of tokens) all.push((await seat.read([id], cache, undefined)).slice());
  await seat.leave();
  return all;
}

/** Logits of every position of texts that go through a model part by part, and what a tap was shown, copied. */
export async function partByPart(folder: string, texts: readonly (readonly number[])[], options = {}) {
  const source = await openBlockSource(folder, options);
  const seen = new Map<string, Float32Array[]>();
  const tap = async ({ module, x }: LinearInput) => {
    await new Promise(setImmediate);
    seen.set(module, [...(seen.get(module) ?? []), x.slice()]);
  };
  let rows: Float32Array[] = await Promise.all(texts.map((ids) => source.embed(ids)));
  for (let index = 0; index < source.count; index++) {
    const block = await source.block(index);
    rows = await block.forward(rows, { tap });
  }
  // The same with weights that are read as they are multiplied with, of short texts together.
  let filed: Float32Array[] = await Promise.all(texts.map((ids) => source.embed(ids)));
  for await (const block of source.filedBlocks(0, {})) {
    const isFloat = block.linears.every(({ quantized }) => !quantized);
    if (isFloat)
      expect(block.memoryUsage).toBeLessThan(block.linears.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0));
    filed = await block.forward(filed);
  }
  filed.forEach((text, i) => {
    expectSameBytes(text, rows[i]!);
  });
  const head = await source.head();
  const logits: Float32Array[] = [];
  for (const text of rows) logits.push(await head.forward(text, { tap }));
  const parted = logits.map(({ length }) => new Float32Array(length));
  const { vocabSize, hiddenSize } = source.config;
  for await (const { from, tokens, head: part } of source.headParts(4 * hiddenSize * 70, {})) {
    expect(part.memoryUsage).toBeGreaterThan(0);
    for (const [t, text] of rows.entries()) {
      const own = await part.forward(text);
      for (let row = 0; row * tokens < own.length; row++)
        parted[t]!.set(own.subarray(row * tokens, (row + 1) * tokens), row * vocabSize + from);
    }
  }
  await source.close();
  return { logits, parted, seen };
}

/** What a model run part by part gives, and shows, has the bits of the whole model. */
export async function expectPartsEqual(
  model: LanguageModel,
  folder: string,
  texts: readonly (readonly number[])[],
  options = {},
): Promise<void> {
  const { logits, parted, seen } = await partByPart(folder, texts, options);
  const whole = new Map<string, Float32Array[]>();
  const tap = ({ module, x }: LinearInput) => void whole.set(module, [...(whole.get(module) ?? []), x.slice()]);
  for (const [i, ids] of texts.entries()) {
    const expected = await model.forward(ids, model.createCache(), { logits: 'all', tap });
    expectSameBytes(logits[i]!, expected);
    expectSameBytes(parted[i]!, expected);
  }
  // Which experts are met first depends on which text comes first, and the other way round.
  const inOrder = (modules: Iterable<string>) => [...modules].filter((module) => !module.includes('.experts.'));
  expect(inOrder(seen.keys())).toEqual(inOrder(whole.keys()));
  expect(new Set(seen.keys())).toEqual(new Set(whole.keys()));
  for (const [module, inputs] of whole) {
    expect(seen.get(module)).toHaveLength(inputs.length);
    inputs.forEach((x, i) => {
      expectSameBytes(seen.get(module)![i]!, x);
    });
  }
}
