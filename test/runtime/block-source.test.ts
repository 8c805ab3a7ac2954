import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, test, vi } from 'vitest';
import { quantizeSync } from '../../lib/compute/quantize.js';
import { Model, openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { configOf, loadLanguageModel } from '../../lib/runtime/load.js';
import { openBlockSource } from '../../lib/runtime/source/block-source.js';
import { Slots } from '../../lib/runtime/weights/filed-linear.js';
import { WeightReader } from '../../lib/runtime/weights/read.js';
import { runFixture } from '../child.js';
import { expectSameBytes } from '../support/bytes.js';
import { changedModel, SHIPPED } from '../support/language-models.js';
import { llamaTensors, safetensorsBytes, writeLlama } from '../support/models.js';
import { expectPartsEqual } from '../support/runs.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('blocks');
const someIds = (count: number, step = 37) => Array.from({ length: count }, (_, i) => (i * step) % 2048);

async function quantized(name: string, options: Parameters<typeof quantizeModel>[2]): Promise<string> {
  const path = join(scratch, name);
  await quantizeModel(SHIPPED, path, options);
  return path;
}

/** A Llama with a head of its own, in float32. */
function llama(name: string, blocks: number, width: number): string {
  const path = writeLlama(join(scratch, name), blocks, width);
  const file = join(path, 'config.json');
  const sizes = { num_attention_heads: 4, intermediate_size: 2 * width, vocab_size: 96, rms_norm_eps: 1e-5 };
  writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as object), ...sizes }));
  return path;
}

/** One of 8 blocks of 5.9 MB. */
const large = () => llama('large', 8, 384);

describe.each([
  ['as it is', async () => SHIPPED, {}],
  ['of 4 bits', () => quantized('q4', { nbits: 4 }), {}],
  ['of 3 bits, with int8', () => quantized('q3', { nbits: 3, groupSize: 32 }), { activations: 'int8', threads: 1 }],
  ['in groups of columns', () => quantized('axis0', { nbits: 8, axis: 0, groupSize: 16 }), {}],
  ['with quantized embeddings', () => quantized('embeddings', { embeddings: 8 }), {}],
  [
    'with a window',
    async () => changedModel(scratch, 'window', { architectures: ['MistralForCausalLM'], sliding_window: 17 }),
    {},
  ],
  [
    'with dynamic scaling',
    async () =>
      changedModel(scratch, 'dynamic', { rope_scaling: { type: 'dynamic', factor: 2 }, max_position_embeddings: 64 }),
    {},
  ],
  ['with a head of its own', async () => llama('untied', 3, 32), {}],
] as const)('a model %s', (name, make, options) => {
  test('gives the logits and inputs of the whole one, to the bit', async () => {
    const folder = await make();
    const model = await loadLanguageModel(folder, { head: 'float32', ...options, maxContext: 400 });
    // More rows than one pass of a block takes, whatever its weights are; past a window and a context that is stretched, all.
    const long = /as it is|int8|of its own/.test(name) ? 300 : 80;
    const texts = [[5], someIds(33), someIds(long, 11), [7, 7, 7]].map((ids) =>
      ids.map((id) => id % model.config.vocabSize),
    );
    await expectPartsEqual(model, folder, texts, options);
    await model.close();
  });
});

test('blocks that are read at once stay in the file each as it is asked to', async () => {
  const model = await openModel(SHIPPED);
  const config = configOf(model);
  const reader = new WeightReader(model, config);
  const run = { activations: 'float32', threads: 1 } as const;
  const filed = { bytes: 0, slots: new Slots() };
  const [inMemory, inFile, again] = await Promise.all([
    reader.block(0, run),
    reader.block(1, run, filed),
    reader.block(2, run),
  ]);
  expect(again.bytes.linears).toBe(inMemory.bytes.linears);
  expect(inFile.bytes.linears).toBeLessThan(0.1 * inMemory.bytes.linears);
  await model.close();
});

describe('a block', () => {
  test('is described', async () => {
    const source = await openBlockSource(await quantized('described', { exclude: ['*.o_proj'] }));
    expect(source.count).toBe(3);
    expect(inspect(source)).toMatch(/^BlockSource \{ .*described, LlamaForCausalLM, 3 blocks of 256 \}$/);
    const block = await source.block(1);
    expect(block).toMatchObject({ index: 1, name: 'model.layers.1' });
    expect(inspect(block)).toMatch(/^OpenBlock \{ model\.layers\.1, [\d.]+ kB \}$/);
    expect(block.linears).toHaveLength(7);
    const { hiddenSize, intermediateSize } = source.config;
    const shape = [hiddenSize, hiddenSize];
    expect(block.linears[0]).toEqual({
      module: 'model.layers.1.self_attn.q_proj',
      shape,
      quantized: true,
      bias: false,
    });
    expect(block.linears[3]).toMatchObject({ module: 'model.layers.1.self_attn.o_proj', quantized: false });
    expect(block.linears[6]).toMatchObject({
      module: 'model.layers.1.mlp.down_proj',
      shape: [hiddenSize, intermediateSize],
    });
    expect(source.memoryUsage).toBe(block.memoryUsage);
    expect(block.memoryUsage).toBeGreaterThan(0);
    const head = await source.head();
    expect(inspect(head)).toMatch(/^OpenHead \{ [\d.]+ MB \}$/);
    expect([block.memoryUsage, source.memoryUsage]).toEqual([0, head.memoryUsage]);
    await source.close();
    expect(source.memoryUsage).toBe(0);
  });

  test('is the same however its rows are shared out, and runs in place', async () => {
    const source = await openBlockSource(SHIPPED);
    const texts = await Promise.all([someIds(20), someIds(270, 3)].map((ids) => source.embed(ids)));
    const block = await source.block(0);
    const rows = vi.fn();
    const together = await block.forward(texts, { onProgress: rows });
    expect(rows.mock.calls).toEqual([[{ rowsDone: 20, rowsTotal: 290 }], [{ rowsDone: 290, rowsTotal: 290 }]]);
    const alone = await Promise.all(texts.map((text) => block.forward([text])));
    alone.forEach(([text], i) => expectSameBytes(text!, together[i]!));
    expect(await block.forward([])).toEqual([]);
    // Views on one buffer, each its own result.
    const buffer = new Float32Array(texts[0]!.length + texts[1]!.length);
    const views = [buffer.subarray(0, texts[0]!.length), buffer.subarray(texts[0]!.length)];
    views.forEach((view, i) => {
      view.set(texts[i]!);
    });
    const results = await block.forward(views, { out: views });
    expect(results).toEqual(views);
    results.forEach((text, i) => expectSameBytes(text.slice(), together[i]!));
    await source.close();
  });

  test('gives weights, and takes others: quantized, and fed to the next', async () => {
    const source = await openBlockSource(SHIPPED);
    const x = [await source.embed(someIds(40))];
    const block = await source.block(0);
    const { module, shape } = block.linears[4]!;
    const data = await block.weight(module);
    const q = quantizeSync({ data, shape }, { nbits: 4 });
    const before = await block.forward(x);
    const coded = await block.replace({ [module]: q });
    expect(coded.linears[4]).toMatchObject({ module, quantized: true });
    const after = await coded.forward(x);
    expect(after).not.toEqual(before);
    expect(coded.memoryUsage).toBeLessThan(block.memoryUsage);
    // As a model is that was quantized so.
    const path = await quantized('replaced', { nbits: 4, include: [`${module}.weight`], metaDtype: 'float32' });
    const stored = await openBlockSource(path);
    const expected = await (await stored.block(0)).forward(x);
    expectSameBytes(after[0]!, expected[0]!);
    expectSameBytes(await coded.weight(module), await (await stored.block(0)).weight(module));
    await stored.close();
    // Numbers too, and back again.
    data.fill(0);
    expect(await block.forward(x)).toEqual(before); // it was a copy
    const same = await coded.replace({ [module]: await block.weight(module) });
    expect(await same.forward(x)).toEqual(before);
    await coded.close();
    for (const closed of [block, coded, same]) {
      await expect(closed.forward(x)).rejects.toThrow('Expected model.layers.0 to be open, got a call after close.');
      await expect(closed.weight(module)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await expect(closed.replace({})).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    }
    await source.close();
  });

  test('keeps the bias of a layer whose weight is replaced', async () => {
    const path = llama('untied', 3, 32);
    const tensors = llamaTensors(3, 32);
    for (const layer of [0, 1, 2]) {
      for (const name of ['gate', 'up']) tensors[`model.layers.${layer}.mlp.${name}_proj.bias`] = { shape: [64] };
      tensors[`model.layers.${layer}.mlp.down_proj.bias`] = { shape: [32] };
    }
    writeFileSync(join(path, 'model.safetensors'), safetensorsBytes(tensors));
    const file = join(path, 'config.json');
    writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as object), mlp_bias: true }));
    const source = await openBlockSource(path);
    const x = [await source.embed([1, 2, 3])];
    const block = await source.block(1);
    const { module, bias } = block.linears[4]!;
    expect(bias).toBe(true);
    const same = await block.replace({ [module]: await block.weight(module) });
    const other = await block.replace({
      [module]: quantizeSync({ data: await block.weight(module), shape: [64, 32] }, { nbits: 8 }),
    });
    expect(await same.forward(x)).toEqual(await block.forward(x));
    const [exact] = await block.forward(x);
    const [near] = await other.forward(x);
    near!.forEach((value, i) => {
      expect(Math.abs(value - exact![i]!)).toBeLessThan(0.02); // 8 bits; without the bias it would be ten times as far
    });
    await source.close();
  });
});

test('rows of a quantized embedding are decoded for one call at a time, and only they', async () => {
  const path = await quantized('table', { embeddings: 8 });
  const model = await openModel(path);
  const table = await model.load('model.embed_tokens.weight');
  await model.close();
  const read = vi.spyOn(Model.prototype, 'loadInto');
  let [running, most] = [0, 0];
  const { loadRows } = Model.prototype;
  const rows = vi.spyOn(Model.prototype, 'loadRows').mockImplementation(async function (this: Model, ...args) {
    most = Math.max(most, ++running);
    await loadRows.apply(this, args);
    running--;
  });
  try {
    const source = await openBlockSource(path);
    const texts = Array.from({ length: 20 }, (_, i) => [i, 2047 - i, i]);
    const controller = new AbortController();
    const pending = texts.map((ids) => source.embed(ids));
    const last = expect(source.embed([1], { signal: controller.signal })).rejects.toBe('enough');
    controller.abort('enough');
    await last;
    texts[19]!.fill(0); // ids are taken at the call
    for (const [i, text] of (await Promise.all(pending)).entries()) {
      const ids = [i, 2047 - i, i];
      expectSameBytes(text, Float32Array.from(ids.flatMap((id) => [...table.subarray(id * 256, (id + 1) * 256)])));
    }
    expect([most, rows.mock.calls.length, read.mock.calls.length]).toEqual([1, 20, 0]);
    await source.close();
  } finally {
    read.mockRestore();
    rows.mockRestore();
  }
});

describe('parts', () => {
  test('are one at a time: the next closes the one before it, when its calls are done', async () => {
    const source = await openBlockSource(SHIPPED);
    const texts = [await source.embed(someIds(300))];
    const first = await source.block(0);
    const running = first.forward(texts);
    const [second, third] = await Promise.all([source.block(1), source.block(2)]);
    expect(await running).toHaveLength(1);
    await expect(first.forward(texts)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await expect(second.forward(texts)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    expect(await third.forward(texts)).toHaveLength(1);
    await source.close();
    await expect(third.forward(texts)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  test('of a loop are closed when it ends, early too', async () => {
    const source = await openBlockSource(SHIPPED);
    const seen: number[] = [];
    let last: { memoryUsage: number } | undefined;
    for await (const block of source.blocks()) {
      expect(last?.memoryUsage ?? 0).toBe(0);
      last = block;
      seen.push(block.index);
      if (seen.length === 5) break;
      if (block.index === 2) break;
    }
    expect([seen, last?.memoryUsage, source.memoryUsage]).toEqual([[0, 1, 2], 0, 0]);
    await source.close();
  });

  test('are no more after close, which waits for what is under way and may come twice', async () => {
    const source = await openBlockSource(SHIPPED);
    const texts = [await source.embed(someIds(300))];
    const block = await source.block(0);
    let done = false;
    const running = block.forward(texts).then(() => (done = true));
    await Promise.all([source.close(), source.close()]);
    expect(done).toBe(true);
    await running;
    const calls = [() => source.block(0), () => source.head(), () => source.embed([1]), () => source.blocks().next()];
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await source.close();
    await block.close();
  });

  test('are read anew after an abort', async () => {
    const source = await openBlockSource(SHIPPED);
    const signal = AbortSignal.abort('enough');
    await expect(source.block(0, { signal })).rejects.toBe('enough');
    await expect(source.head({ signal })).rejects.toBe('enough');
    await expect(source.embed([1], { signal })).rejects.toBe('enough');
    const controller = new AbortController();
    const pending = source.block(1, { signal: controller.signal });
    const outcome = expect(pending).rejects.toBe('later');
    await new Promise(setImmediate);
    controller.abort('later');
    await outcome;
    const block = await source.block(1);
    const x = [await source.embed(someIds(3))];
    await expect(block.forward(x, { signal })).rejects.toBe('enough');
    const other = await openBlockSource(SHIPPED);
    expect(await block.forward(x)).toEqual(await (await other.block(1)).forward(x));
    await Promise.all([source.close(), other.close()]);
  });

  test('what a tap throws ends the call', async () => {
    const source = await openBlockSource(SHIPPED);
    const block = await source.block(0);
    const x = [await source.embed([1, 2])];
    const tap = () => {
      throw new Error('seen enough');
    };
    await expect(block.forward(x, { tap })).rejects.toThrow('seen enough');
    expect(await block.forward(x)).toHaveLength(1);
    await source.close();
  });

  test('stay as they are when a call for the next is aborted before its turn', async () => {
    const source = await openBlockSource(SHIPPED);
    const texts = [await source.embed(someIds(300))];
    const block = await source.block(0);
    const aborted = { signal: AbortSignal.abort('enough') };
    await expect(source.block(1, aborted)).rejects.toBe('enough');
    await expect(source.head(aborted)).rejects.toBe('enough');
    expect(await block.forward(texts)).toHaveLength(1);
    expect(source.memoryUsage).toBe(block.memoryUsage);
    await source.close();
  });

  test('are waited for no longer than a signal allows, and come in order all the same', async () => {
    const source = await openBlockSource(SHIPPED);
    const texts = [await source.embed([1, 2])];
    const first = await source.block(0);
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    const running = first.forward(texts, { tap: () => held }); // no next part until it is released
    const [one, two] = [new AbortController(), new AbortController()];
    const closing = source.block(1, { signal: one.signal }); // waits for the calls on the first
    const queued = source.block(2, { signal: two.signal }); // waits for its turn
    const last = source.head();
    await new Promise(setImmediate);
    two.abort('two');
    await expect(queued).rejects.toBe('two');
    one.abort('one');
    await expect(closing).rejects.toBe('one');
    expect(first.memoryUsage).toBeGreaterThan(0); // somebody computes with it
    release();
    await running;
    expect((await last).memoryUsage).toBe(source.memoryUsage);
    expect(first.memoryUsage).toBe(0);
    await source.close();
  });

  test('of a loop end in order when its body closes the source', async () => {
    const source = await openBlockSource(SHIPPED);
    const seen: number[] = [];
    for await (const block of source.blocks()) {
      seen.push(block.index);
      if (block.index === 1) await source.close();
    }
    expect(seen).toEqual([0, 1]);
  });

  test('one is in memory at a time', async () => {
    const { stdout, stderr } = await runFixture('block-memory.mjs', [large()]);
    expect(stderr).toBe('');
    const { block, most, afterBlocks, total } = JSON.parse(stdout) as Record<string, number>;
    expect(block).toBe(4 * (4 * 384 * 384 + 3 * 384 * 768 + 2 * 384));
    expect(total).toBeGreaterThan(8 * block!);
    expect(afterBlocks).toBe(0);
    // Beside the block: keys and values of 256 positions, and a frame of 40 rows.
    expect(most).toBeLessThan(1.6 * block!);
  });

  test('leave memory when they are closed, and replacements when nobody has them', async () => {
    const { stdout, stderr } = await runFixture('block-release.mjs', [large()]);
    expect(stderr).toBe('');
    const { memoryUsage, alive, left, after } = JSON.parse(stdout) as Record<string, number>;
    expect(alive).toBeLessThan(3); // the last one may still be on the stack
    expect(left).toBeLessThan(memoryUsage! / 4);
    expect(after).toBe(0);
  });
});
