import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { type BlockSource, openBlockSource } from '../../lib/runtime/source/block-source.js';
import { type Batch, modelDivergence } from '../../lib/tune/model/gradient.js';
import type { CodedLayer } from '../../lib/tune/model/scales.js';
import { tuneScales } from '../../lib/tune/model/tune-scales.js';
import { Room } from '../../lib/tune/tape/room.js';
import { goldenIds, goldenModel, writeGolden } from '../support/golden-models.js';
import { gaussian, randomOf } from '../support/random.mjs';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('model-gradient');

/** Texts, and what the model makes of them. */
async function batchOf(source: BlockSource, texts: readonly number[][]): Promise<Batch> {
  const inputs = [];
  for (const ids of texts) inputs.push(await source.embed(ids));
  const all = (arrays: readonly Float32Array[]) => Float32Array.from(arrays.flatMap((array) => [...array]));
  const input = all(inputs);
  let outs = inputs;
  for await (const block of source.blocks()) outs = await block.forward(outs);
  return { lengths: texts.map(({ length }) => length), input, wanted: all(outs) };
}

/** Weights of all blocks, some way off. */
async function weightsOf(source: BlockSource, off: number): Promise<Map<string, Float32Array>[]> {
  const random = gaussian(randomOf(3), off);
  const all: Map<string, Float32Array>[] = [];
  for await (const block of source.blocks()) {
    const own = new Map<string, Float32Array>();
    for (const { module } of block.linears)
      own.set(
        module,
        (await block.weight(module)).map((value) => value * (1 + random())),
      );
    all.push(own);
  }
  return all;
}

describe.each(['llama, tied', 'gemma2', 'granite'])('%s', (name) => {
  test('the gradient of the divergence is that of differences, through all blocks', async () => {
    const source = await openBlockSource(writeGolden(join(work, name.replaceAll(/\W/g, '-')), goldenModel(name)));
    const batch = await batchOf(source, [goldenIds(12), goldenIds(20).slice(7)]);
    const run = { signal: undefined, room: new Room() };
    expect(await modelDivergence(source, batch, { weightsOf: async () => new Map() }, run)).toBeCloseTo(0, 9);
    const weights = await weightsOf(source, 0.3);
    const blocks = { weightsOf: async (index: number) => weights[index]! };
    const gradients: Map<string, Float32Array>[] = [];
    const take = async (index: number, own: ReadonlyMap<string, Float32Array>) => {
      gradients[index] = new Map([...own].map(([module, gradient]) => [module, gradient.slice()]));
    };
    const loss = await modelDivergence(source, batch, { ...blocks, take }, run);
    expect(loss).toBeGreaterThan(1e-3);
    const random = gaussian(randomOf(5), 1);
    for (const [index, own] of weights.entries()) {
      const [got, size] = [0, 0];
      const before = new Map([...own].map(([module, weight]) => [module, weight.slice()]));
      const directions = new Map([...own].map(([module, weight]) => [module, weight.map((value) => value * random())]));
      const along = async (step: number) => {
        for (const [module, weight] of own)
          weight.set(before.get(module)!.map((value, i) => value + step * directions.get(module)![i]!));
        return modelDivergence(source, batch, blocks, run);
      };
      const slope = async (step: number) => ((await along(step)) - (await along(-step))) / (2 * step);
      const [wide, narrow] = [await slope(0.01), await slope(0.005)];
      await along(0);
      let [sum, squares] = [got, size];
      for (const [module, direction] of directions) {
        const gradient = gradients[index]!.get(module)!;
        for (const [i, by] of direction.entries()) {
          sum += by * gradient[i]!;
          squares += (by * gradient[i]!) ** 2;
        }
      }
      expect(Math.abs(sum - (4 * narrow - wide) / 3), `block ${index}`).toBeLessThan(0.02 * Math.sqrt(squares));
    }
    await source.close();
  });
});

test('scales and zeros of a model come nearer to its probabilities, and stay as they were where they do not', async () => {
  const source = await openBlockSource(writeGolden(join(work, 'scales'), goldenModel('llama')));
  const batch = await batchOf(source, [goldenIds(24), goldenIds(40).slice(9)]);
  const blocks: CodedLayer[][] = [];
  for await (const block of source.blocks()) {
    const own: CodedLayer[] = [];
    for (const { module, shape } of block.linears) {
      const weights = await block.weight(module);
      const cols = 16;
      const rows = weights.length / cols;
      const [codes, scale, zero] = [
        new Uint8Array(weights.length),
        new Float32Array(rows),
        new Float32Array(rows).fill(1.5),
      ];
      for (let row = 0; row < rows; row++) {
        const group = weights.subarray(row * cols, (row + 1) * cols);
        scale[row] = Math.max(...group.map(Math.abs)) / 1.5;
        for (const [i, w] of group.entries())
          codes[row * cols + i] = Math.min(3, Math.max(0, Math.round(w / scale[row]! + 1.5)));
      }
      expect(shape[0] * shape[1]).toBe(weights.length);
      const stored = async (s: Float32Array, z: Float32Array) => ({ scale: s, zero: z });
      own.push({ module, rows, cols, axis: 1, codes: async () => codes, scale, zero, movesZero: true, stored });
    }
    blocks.push(own);
  }
  const texts = {
    next: async () => batch,
    async *held() {
      yield batch;
    },
  };
  const seen: number[] = [];
  const run = { backend: activeBackend(), signal: undefined, steps: 12, onStep: (done: number) => seen.push(done) };
  const results = [];
  for (const threads of [1, 2, 7])
    results.push(await tuneScales(source, blocks, texts, { ...run, threads, rate: 0.02 }));
  const [one, ...others] = results;
  expect(one!.after).toBeLessThan(0.8 * one!.before);
  expect(one!.layers!.size).toBe(blocks.flat().length);
  for (const other of others) expect(other).toEqual(one);
  expect(seen.slice(0, 13)).toEqual(Array.from({ length: 13 }, (_, i) => i));
  // What is learnt from another model's probabilities is no use.
  const away = { ...texts, next: async () => ({ ...batch, wanted: batch.wanted.map((value) => -value) }) };
  const far = await tuneScales(source, blocks, away, { ...run, threads: 2, rate: 0.02 });
  expect(far.layers).toBeUndefined();
  expect(far.before).toBe(one!.before);
  await source.close();
});
