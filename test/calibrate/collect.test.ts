import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type CollectOptions, type CollectProgress, collectImportance } from '../../lib/calibrate/collect.js';
import { likelyTexts } from '../../lib/calibrate/likely.js';
import { ownTexts } from '../../lib/calibrate/own.js';
import { languageReader } from '../../lib/calibrate/reader.js';
import { readStatistics, saveStatistics } from '../../lib/calibrate/statistics-file.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { openBlockSource } from '../../lib/runtime/source/block-source.js';
import { failure } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('collect');
const TEXT = readFileSync(join(SHIPPED, 'alice.txt'), 'utf8');

/** What the whole model is shown, summed up. */
async function whole(texts: readonly (readonly number[])[]): Promise<Map<string, Float64Array>> {
  await using model = await loadLanguageModel(SHIPPED);
  const sums = new Map<string, { sums: Float64Array; rows: number }>();
  for (const ids of texts) {
    await model.forward(ids, model.createCache(), {
      tap: ({ module, rows, x }) => {
        const width = x.length / rows;
        const own = sums.get(module) ?? { sums: new Float64Array(width), rows: 0 };
        sums.set(module, own);
        own.rows += rows;
        x.forEach((value, i) => {
          own.sums[i % width]! += value * value;
        });
      },
    });
  }
  return new Map([...sums].map(([module, own]) => [module, own.sums.map((sum) => sum / own.rows)]));
}

function expectNear(actual: ReadonlyMap<string, Float32Array>, expected: ReadonlyMap<string, Float64Array>): void {
  expect([...actual.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [module, values] of actual) {
    const exact = expected.get(module)!;
    expect(values.length).toBe(exact.length);
    values.forEach((value, i) => {
      if (Math.abs(value - exact[i]!) > 1e-4 * exact[i]!) expect(value, `${module} ${i}`).toBeCloseTo(exact[i]!, 6);
    });
  }
}

/** Texts of ids, as many as trained for. */
const cut = (ids: readonly number[], size = 128) =>
  Array.from({ length: Math.ceil(ids.length / size) }, (_, i) => ids.slice(i * size, (i + 1) * size));

describe('collectImportance', () => {
  test('random: mean squares of what the whole model is shown', async () => {
    const reader = languageReader(await openBlockSource(SHIPPED));
    const texts = await likelyTexts(reader, { tokens: 300, seed: 5, signal: undefined });
    await reader.close();
    const { meanSquares, tokens, source } = await collectImportance(SHIPPED, { tokens: 300, seed: 5 });
    expect({ tokens, source }).toEqual({ tokens: 300, source: 'random' });
    // The head's logits are those of the last position alone in a forward pass: its inputs are compared below.
    const blocks = new Map([...meanSquares].filter(([module]) => module !== 'lm_head'));
    expect(texts.map(({ length }) => length)).toEqual([128, 128, 44]);
    const shown = await whole(texts.map((ids) => [...ids]));
    shown.delete('lm_head');
    expect(blocks.size).toBe(21);
    expectNear(blocks, shown);
  });

  test('random: what the model expects is the mean of its probabilities', async () => {
    const texts = [
      [5, 9, 700],
      [1, 2],
    ];
    await using model = await loadLanguageModel(SHIPPED, { head: 'float32' });
    const { vocabSize } = model.config;
    const expected = new Float64Array(vocabSize);
    for (const ids of texts) {
      const logits = await model.forward(ids, model.createCache(), { logits: 'all' });
      for (let row = 0; row < ids.length; row++) {
        const shares = Float64Array.from(logits.subarray(row * vocabSize, (row + 1) * vocabSize), Math.exp);
        const mass = shares.reduce((a, b) => a + b);
        for (const [i, share] of shares.entries()) expected[i]! += share / mass / 5;
      }
    }
    const reader = languageReader(await openBlockSource(SHIPPED));
    const shares = (await reader.expected!(
      texts.map((ids) => Uint32Array.from(ids)),
      undefined,
    ))!;
    await reader.close();
    expect(shares.reduce((a, b) => a + b)).toBeCloseTo(1, 10);
    for (const [i, share] of shares.entries()) expect(Math.abs(share - expected[i]!)).toBeLessThan(1e-4 * expected[i]!);
  });

  test('random: tokens are drawn as often as the model expects them, and no more often than 1 in 64', async () => {
    const shares = Float64Array.from({ length: 1000 }, (_, id) => (id < 2 ? 0.45 : id < 12 ? 0.01 : 0));
    const config = { vocabSize: 1000, maxPositions: 512 };
    const expected = async (contexts: readonly Uint32Array[]) => {
      expect(contexts).toHaveLength(8);
      return shares;
    };
    const run = { tokens: 6000, seed: 3, signal: undefined };
    const ids = (await likelyTexts({ config, expected }, run)).flatMap((text) => [...text]);
    const counts = Array.from({ length: 1000 }, (_, id) => ids.filter((one) => one === id).length);
    expect(counts.reduce((a, b) => a + b)).toBe(6000);
    expect(counts.slice(12).every((count) => count === 0)).toBe(true);
    // The first two have 1/64 of the weight, and the next ten 1/100 each.
    const total = 2 / 64 + 10 / 100;
    for (let id = 0; id < 12; id++) expect(counts[id]! / 6000).toBeCloseTo((id < 2 ? 1 / 64 : 0.01) / total, 1);
    const nudged = async () => shares.map((share, id) => share * (1 + (id % 2 ? 1e-7 : -1e-7)));
    expect((await likelyTexts({ config, expected: nudged }, run)).flatMap((text) => [...text])).toEqual(ids);
    const plain = await likelyTexts({ config }, run); // nothing is expected: all alike
    expect(new Set(plain.flatMap((text) => [...text])).size).toBeGreaterThan(900);
    const broken = await likelyTexts({ config, expected: async () => shares.fill(Number.NaN) }, run);
    expect(broken).toEqual(plain);
    const none = await likelyTexts({ config, expected: async () => shares.fill(0) }, run); // would be drawn for ever
    expect(none).toEqual(plain);
  });

  test('is the same for any number of threads and the same seed', async () => {
    const of = async (options: CollectOptions) =>
      (await collectImportance(SHIPPED, { tokens: 200, ...options })).meanSquares;
    const one = await of({ threads: 1 });
    for (const threads of [2, 7]) expect(await of({ threads })).toEqual(one);
    expect(await of({ seed: 1 })).not.toEqual(one);
  });

  test('text: its beginning, given or in a file', async () => {
    await using model = await loadLanguageModel(SHIPPED);
    const ids = (await (await model.tokenizer()).encode(TEXT)).slice(0, 200);
    const shown = await whole(cut(ids));
    shown.delete('lm_head');
    const given = await collectImportance(SHIPPED, { importance: { text: TEXT }, tokens: 200, head: false });
    expect({ source: given.source, tokens: given.tokens }).toEqual({ source: 'text', tokens: 200 });
    expectNear(given.meanSquares, shown);
    const file = await collectImportance(SHIPPED, {
      ...{ importance: `text:${join(SHIPPED, 'alice.txt')}`, tokens: 200, head: false },
    });
    expect(file).toEqual(given);
    const short = await collectImportance(SHIPPED, { importance: { text: 'The sea' }, head: false });
    expect(short.tokens).toBeLessThan(10);
  });

  test('own: a text that the model writes, the same for the same seed', async () => {
    const progress: CollectProgress[] = [];
    const options = { importance: 'own', tokens: 150, head: false } as const;
    const one = await collectImportance(SHIPPED, { ...options, onProgress: (p) => progress.push(p) });
    expect({ source: one.source, tokens: one.tokens }).toEqual({ source: 'own', tokens: 150 });
    expect(progress.filter(({ phase }) => phase === 'writing').at(-1)).toEqual({
      phase: 'writing',
      done: 150,
      total: 150,
    });
    expect(await collectImportance(SHIPPED, options)).toEqual(one);
    expect((await collectImportance(SHIPPED, { ...options, seed: 1 })).meanSquares).not.toEqual(one.meanSquares);
  });

  test('own: texts are written together, each as the model writes it alone', async () => {
    const [tokens, seed] = [9 * 128 + 40, 3]; // more texts than are written at a time, the last one shorter
    const texts = await ownTexts(SHIPPED, { tokens, seed, threads: undefined, signal: undefined, progress: () => {} });
    expect(texts.map(({ length }) => length)).toEqual([...Array.from({ length: 9 }, () => 128), 40]);
    await using model = await loadLanguageModel(SHIPPED);
    const begin = model.config.beginId!;
    for (const index of [0, 1, 7, 8, 9]) {
      const text = texts[index]!;
      const first = text.indexOf(begin, 1);
      const piece = Array.from(first < 0 ? text : text.subarray(0, first));
      const alone = [begin];
      const draw = { temperature: 1, seed: seed + index * 2 ** 32, maxTokens: piece.length };
      for await (const { id } of model.generate([begin], draw)) alone.push(id);
      expect(piece).toEqual(alone.slice(0, piece.length));
    }
  });

  test('own: a text of one token is what begins it', async () => {
    const [text] = await ownTexts(SHIPPED, { tokens: 1, seed: 0, threads: 1, signal: undefined, progress: () => {} });
    expect(text).toHaveLength(1);
  });

  test('goes into a file and comes back', async () => {
    const path = join(scratch, 'statistics.safetensors');
    const made = await collectImportance(SHIPPED, { tokens: 100 });
    await saveStatistics(path, made, { force: false, seed: 0 });
    expect((await readStatistics(path)).meanSquares).toEqual(made.meanSquares);
    const loaded = await collectImportance(SHIPPED, { importance: path });
    expect(loaded).toEqual({ source: path, tokens: undefined, meanSquares: made.meanSquares });
    expect(await failure(() => saveStatistics(path, made, { force: false, seed: 0 }))).toMatchObject({
      code: 'ERR_IO',
    });
  });

  test('stops at once when it is aborted', async () => {
    for (const importance of ['random', 'own'] as const) {
      const stop = new AbortController();
      let aborted = Infinity;
      const onProgress = () => {
        stop.abort(new Error('enough'));
        aborted = performance.now();
      };
      const run = { importance, tokens: 10_000, signal: stop.signal, onProgress };
      expect((await failure(() => collectImportance(SHIPPED, run))).message).toBe('enough');
      expect(performance.now() - aborted).toBeLessThan(1000); // 100 ms where the machine does nothing else
    }
  });

  test.each<[object, RegExp]>([
    [{ importance: 'auto' }, /Expected importance to be random, own/],
    [{ importance: '' }, /Expected importance/],
    [{ importance: { text: '' } }, /Expected importance/],
    [{ seed: -1 }, /Expected seed to be an integer, at least 0, got -1/],
    [{ tokens: 0 }, /Expected tokens to be an integer in \[1, 16777216\], got 0/],
    [{ head: 1 }, /Expected head to be true or false/],
    [{ toknes: 1 }, /Unknown option "toknes".*tokens/],
    [{ onProgress: 1 }, /Expected onProgress to be a function/],
  ])('refuses %j', async (options, message) => {
    const error = await failure(() => collectImportance(SHIPPED, options as CollectOptions));
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION' });
    expect(error.message).toMatch(message);
  });

  test('a model that the runtime does not run', async () => {
    const folder = join(scratch, 'other');
    cpSync(SHIPPED, folder, { recursive: true });
    writeFileSync(join(folder, 'config.json'), '{"architectures": ["GPT2LMHeadModel"]}');
    expect(await failure(() => collectImportance(folder))).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT' });
    rmSync(folder, { recursive: true });
    expect(await failure(() => collectImportance(folder))).toMatchObject({ code: 'ERR_IO' });
  });
});

describe("llama.cpp's imatrix", () => {
  type Row = readonly [name: string, dims: readonly number[], values: readonly number[]];

  /** A GGUF of float32 tensors. */
  function gguf(rows: readonly Row[]): Buffer {
    const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
    const u64 = (value: number) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
    const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
    const parts = [
      Buffer.from('GGUF'),
      u32(3),
      u64(rows.length),
      u64(1),
      text('general.type'),
      u32(8),
      text('imatrix'),
    ];
    let at = 0;
    for (const [name, dims, values] of rows) {
      parts.push(text(name), u32(dims.length), ...dims.map(u64), u32(0), u64(at));
      at += Math.ceil((4 * values.length) / 32) * 32;
    }
    const pad = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32)]);
    return Buffer.concat([
      pad(Buffer.concat(parts)),
      ...rows.map(([, , values]) => pad(Buffer.from(Float32Array.from(values).buffer))),
    ]);
  }
  const write = (name: string, rows: readonly Row[]) => {
    const path = join(scratch, name);
    writeFileSync(path, gguf(rows));
    return path;
  };

  test('is read: sums over counts, by the names of Hugging Face', async () => {
    const path = write('imatrix.gguf', [
      ['blk.1.attn_output.weight.in_sum2', [4], [4, 8, 12, 0]],
      ['blk.1.attn_output.weight.counts', [1], [4]],
      ['output.weight.in_sum2', [2, 1], [3, 6]],
      ['output.weight.counts', [1, 1], [3]],
      ['blk.0.ffn_up_exps.weight.in_sum2', [2, 3], [1, 1, 1, 1, 1, 1]], // experts
      ['blk.0.ffn_up_exps.weight.counts', [1, 3], [1, 1, 1]],
    ]);
    const { meanSquares } = await collectImportance(SHIPPED, { importance: path });
    expect(Object.fromEntries(meanSquares)).toEqual({
      'model.layers.1.self_attn.o_proj': Float32Array.of(1, 2, 3, 0),
      lm_head: Float32Array.of(1, 2),
    });
  });

  test('without counts is refused', async () => {
    const path = write('broken.gguf', [['blk.1.attn_q.weight.in_sum2', [2], [1, 2]]]);
    const error = await failure(() => collectImportance(SHIPPED, { importance: path }));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT' });
    expect(error.message).toMatch(/sums without a count of rows in "blk\.1\.attn_q\.weight\.in_sum2"/);
  });
});
