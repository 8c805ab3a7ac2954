import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { runTask } from '../../lib/compute/run.js';
import type { LinearSite } from '../../lib/containers/container.js';
import { Scratch } from '../../lib/containers/scratch.js';
import { storedType } from '../../lib/containers/stored-types.js';
import { BLOCK_TYPES } from '../../lib/matrix/block-types.js';
import { compareModels } from '../../lib/models/compare.js';
import { openModel } from '../../lib/models/model.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { sumsOfChosen } from '../../lib/schemes/chosen.js';
import { encodeRows } from '../../lib/schemes/ggml/encode.js';
import { schemeNamed } from '../../lib/schemes/list.js';
import type { PlannedLayer } from '../../lib/schemes/scheme.js';
import { TunedLayer } from '../../lib/tune/layer.js';
import { failure, randomWeights } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// ggml's blocks, tuned: what is stored is what was tuned.

const scratch = scratchFolder('tune-ggml');
const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(3);
const tune: TuneOptions = { data: { text }, steps: 3, tokens: 96, length: 32, batch: 2 };
const machine = { backend: activeBackend(), threads: 1, signal: undefined };

const shape = [6, 512] as const;
const [rows, cols] = shape;

/** A layer of floats, with some sub-blocks that are all alike or zero, and some that are `lowest`. */
function layerOf(name: string, lowest = 0): { readonly layer: PlannedLayer; readonly floats: Float32Array } {
  const floats = randomWeights(rows * cols, 5);
  floats.fill(0, 0, 64);
  floats.fill(0.25, 64, 128);
  floats.fill(1e-7, 256, 272);
  floats.fill(0, 512, 768);
  floats.fill(lowest, 1024, 1280);
  const weight = { name: 'blk.0.attn_v.weight', type: storedType('F32'), shape, file: 'x', begin: 0, end: 0 };
  const site: LinearSite = { name: 'blk.0.attn_v', weight, shape, stored: 'out-in', bias: undefined } as never;
  const model = { entries: new Map(), envelope: {} } as never;
  const form = schemeNamed('gguf').fit(site, {
    config: {},
    modelDtype: 'float32',
    metaDtype: 'auto',
    type: name,
    model,
  });
  return { layer: { site, form } as PlannedLayer, floats };
}

describe.each(BLOCK_TYPES.filter(({ curved }) => !curved))('$name', (type) => {
  const blocks = schemeNamed('gguf').blockTuning!;

  test('stores exactly what was tuned', async () => {
    const { layer, floats } = layerOf(type.name.toLowerCase(), type.minima ? 0 : type.low); // a scale of 1 and codes of 0, but no zeros
    const tuned = new TunedLayer({ weight: 'w', module: 'm' }, await blocks.begin(layer, floats, undefined, machine));
    const decode = async (bytes: Uint8Array) => {
      const out = new Float32Array(rows * cols);
      await runTask(machine.backend, 'decodeBlocks', { type: type.id, blocks: bytes, out, threads: 1 });
      return out;
    };
    const solved = await tuned.solved(machine);
    expect(solved.chosen.codes.length).toBe(blocks.bytes(layer.form));
    expect(await decode(solved.chosen.codes)).toEqual(solved.values);
    const same = (a: Float32Array, b: Float32Array, bound: number) =>
      expect(a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0)).toBeLessThan(bound);
    // Codes that nobody has moved are those of the solver, but where two are as near.
    await tuned.begin(machine);
    same(tuned.values, solved.values, 3e-4);
    for (let step = 0; step < 4; step++) await tuned.step(randomWeights(rows * cols, step + 7), 0.2, machine);
    const before = tuned.values.slice();
    const { chosen, values } = await tuned.finish(machine);
    expect(await decode(chosen.codes)).toEqual(values);
    expect(values).not.toEqual(solved.values);
    // Scales are rounded at the end.
    const levels = values.filter((value, i) => Math.abs(value - before[i]!) > 2e-3).length;
    expect(levels).toBeLessThan(type.meta ? 1 : values.length / 20);
    if (type.low === -127) expect(chosen.codes.some((byte, i) => i % 34 > 1 && byte === 128)).toBe(false);
  });
});

test('the event loop has its turn while scales are rounded and errors are measured', async () => {
  const { layer, floats } = layerOf('q4_1');
  const controller = new AbortController();
  const { signal } = controller;
  const own = { ...machine, signal };
  const start = await schemeNamed('gguf').blockTuning!.begin(layer, floats, undefined, own);
  const { chosen } = start.solved!;
  controller.abort(new Error('stopped'));
  const settling = failure(() => start.settle(start.scale as never, start.zero as never, own));
  expect((await settling).message).toBe('stopped');
  const run = { slot: new Scratch(), threads: 1, signal, chosen, compute: () => Promise.resolve() };
  const chunk = { rows: { first: 0, count: rows }, cols, weights: [], count: floats.length };
  const bytes = new Uint8Array(floats.buffer);
  expect((await failure(() => encodeRows(layer as never, chunk as never, bytes, run))).message).toBe('stopped');
  const part = { codes: new Uint8Array(1 << 16), scale: new Float32Array(1 << 10), zero: new Float32Array(1 << 10) };
  const measuring = failure(() => sumsOfChosen(new Float32Array(1 << 16), 'float32', part, 64, 0, signal));
  expect((await measuring).message).toBe('stopped');
});

describe('a GGUF file', () => {
  test.each(['q4_0', 'Q4_K_M'])('is tuned, its rows in the order that llama.cpp has: %s', async (type) => {
    const folder = join(scratch, type);
    mkdirSync(folder);
    const [plain, tuned] = [join(folder, 'plain.gguf'), join(folder, 'tuned.gguf')];
    await quantizeModel(SHIPPED, plain, { type, importance: 'none' });
    const report = await quantizeModel(SHIPPED, tuned, { type, importance: 'none', tune });
    expect(report.notes.join(' ')).toMatch(/Tuned 3 blocks in 3 steps each: .* are \d{2}(\.\d)? % of what they were/);
    expect(readdirSync(folder).sort()).toEqual(['plain.gguf', 'tuned.gguf']);
    expect(readFileSync(tuned).length).toBe(readFileSync(plain).length);
    expect(readFileSync(tuned).equals(readFileSync(plain))).toBe(false);
    // Rows of another order would be no nearer than chance.
    expect(report.tensors.length).toBeGreaterThan(20);
    for (const { relativeError } of report.tensors) expect(relativeError).toBeLessThan(0.2);
    const { tensors } = await compareModels(SHIPPED, tuned);
    expect(tensors.length).toBe(report.tensors.length);
    for (const { relativeError } of tensors) expect(relativeError).toBeLessThan(0.2);
  });

  test('goes on where it was stopped, with the same bytes', async () => {
    const [whole, stopped] = [join(scratch, 'Q4_K_M', 'tuned.gguf'), join(scratch, 'stopped.gguf')];
    const own = { type: 'Q4_K_M', importance: 'none', tune } as const;
    const controller = new AbortController();
    const run = quantizeModel(SHIPPED, stopped, {
      ...{ ...own, signal: controller.signal },
      onProgress: ({ tuning }) => void (tuning?.block === 2 && controller.abort(new Error('stopped'))),
    });
    expect((await failure(() => run)).message).toBe('stopped');
    const { notes } = await quantizeModel(SHIPPED, stopped, { ...own, tune: { ...tune, keep: true } });
    expect(notes.join(' ')).toMatch(/stays in .*stopped\.gguf\.tune; .* goes on from it\./); // without a last stage, which blocks have not
    expect(readFileSync(stopped).equals(readFileSync(whole))).toBe(true);
  });

  test('has its embeddings in what goes into the first block', async () => {
    const output = join(scratch, 'embedded.gguf');
    const controller = new AbortController();
    const run = quantizeModel(SHIPPED, output, {
      ...{ type: 'q4_0', importance: 'none', tune, signal: controller.signal },
      onProgress: ({ tuning }) => void (tuning && controller.abort(new Error('stopped'))),
    });
    expect((await failure(() => run)).message).toBe('stopped');
    const [floats, codes] = ['floats', 'codes'].map((name) => {
      const bytes = readFileSync(join(`${output}.tune`, `${name}-0.bin`));
      return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    }) as [Float32Array, Float32Array];
    const sum = (values: Float32Array) => values.reduce((total, value) => total + value ** 2, 0);
    const error = Math.sqrt(sum(floats.map((value, i) => value - codes[i]!)) / sum(floats));
    expect(error).toBeGreaterThan(1e-3);
    expect(error).toBeLessThan(0.2);
  });

  test('counts errors of layers that it leaves to the solver', async () => {
    const output = join(scratch, 'mixed.gguf');
    const controller = new AbortController();
    const run = quantizeModel(SHIPPED, output, {
      ...{
        type: 'iq4_nl',
        overrides: { '*ffn_down*': { nbits: 8 }, '*token_embd*': { nbits: 8 } },
        importance: 'none',
      },
      ...{ tune: { ...tune, steps: 1 }, signal: controller.signal },
      onProgress: ({ tuning }) => void (tuning?.block === 1 && controller.abort(new Error('stopped'))),
    });
    expect((await failure(() => run)).message).toBe('stopped');
    const [block] = JSON.parse(readFileSync(join(`${output}.tune`, 'state.json'), 'utf8')).blocks;
    expect(block.layers.length).toBe(1);
    expect(block.before).toBeGreaterThan(1e-3); // of those in Q8_0 alone: 1.6e-4
    expect(block.after).toBeGreaterThan(1e-3);
  });

  test('gives these the importance of the text, too', async () => {
    const load = async (importance: 'none' | 'auto') => {
      const output = join(scratch, `weighed ${importance}.gguf`);
      const mixed = {
        type: 'iq4_nl',
        overrides: { '*ffn_down*': { nbits: 8 }, '*token_embd*': { nbits: 8 } },
      } as const;
      const report = await quantizeModel(SHIPPED, output, { ...mixed, importance, tune: { ...tune, steps: 1 } });
      expect(report.importance).toBe(importance === 'auto' ? 'text' : 'none');
      expect(report.notes.join(' ')).toMatch(/Tuned 3 blocks in 1 step each.*18 layers .* were not tuned: IQ4_NL/);
      await using model = await openModel(output);
      return model.load('blk.1.attn_q.weight');
    };
    expect(await load('auto')).not.toEqual(await load('none'));
  });

  test('has of them what is counted', async () => {
    const { layer, floats } = layerOf('iq4_nl');
    const scheme = schemeNamed('gguf');
    const compute = (operation: never, args: never) => runTask(machine.backend, operation, args, machine);
    const slot = { take: (_: string, Kind: new (length: number) => unknown, length: number) => new Kind(length) };
    const [chunk] = scheme.chunks(layer.form);
    const weights = new Uint8Array(floats.buffer);
    const { pieces } = await scheme.encode(layer, chunk!, weights, { slot, threads: 1, compute } as never);
    const out = new Float32Array(rows * cols);
    const { id } = BLOCK_TYPES.find(({ name }) => name === 'IQ4_NL')!;
    await runTask(machine.backend, 'decodeBlocks', {
      type: id,
      blocks: pieces[0]!.bytes as Uint8Array,
      out,
      threads: 1,
    });
    expect(await scheme.blockTuning!.solve(layer, floats, undefined, machine)).toEqual(out);
    const kept = { ...layer, form: { ...layer.form, kept: true } } as PlannedLayer;
    expect(await scheme.blockTuning!.solve(kept, floats, undefined, machine)).toEqual(floats);
  });

  test('says what it does not go with', async () => {
    const output = join(scratch, 'refused.gguf');
    const cases = [
      [{ type: 'iq4_nl', tune }, SHIPPED, /IQ4_NL has levels on a curve/],
      [{ type: 'q4_0', tune: { ...tune, model: 3 } }, SHIPPED, /no tuning of the whole model .* got 3 steps/],
      [{ type: 'q4_0', tune }, join(scratch, 'stopped.gguf'), /already|folder of safetensors/],
    ] as const;
    for (const [own, input, message] of cases)
      expect((await failure(() => quantizeModel(input, output, own))).message).toMatch(message);
  });
});
