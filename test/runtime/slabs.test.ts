import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { largeFloats } from '../../lib/compute/memory.js';
import { quantizeSync } from '../../lib/compute/quantize.js';
import { openFolderModel } from '../../lib/models/folder-model.js';
import type { Model } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { CodedLinear } from '../../lib/runtime/blocks/linear.js';
import { configOf } from '../../lib/runtime/load.js';
import { readLinear } from '../../lib/runtime/weights/linears.js';
import { readWeights } from '../../lib/runtime/weights/read.js';
import { Slabs } from '../../lib/runtime/weights/slabs.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const coded = join(scratchFolder('slabs'), 'coded');
const PAGE = 1 << 21;

beforeAll(() => quantizeModel(SHIPPED, coded, { nbits: 4, importance: 'none' }));

describe('memory of weights', () => {
  test('is cut into arrays of zeros that share no byte', () => {
    const slabs = new Slabs();
    const arrays: (Uint8Array | Float32Array)[] = [];
    for (let i = 0; i < 60; i++) {
      const count = 1 + ((i * 7919) % 300_000);
      arrays.push(i % 2 === 0 ? slabs.bytes(count) : slabs.floats(count));
      expect(arrays[i]!.length).toBe(count);
      expect(arrays[i]!.every((value) => value === 0)).toBe(true);
      arrays[i]!.fill(i + 1);
    }
    for (const [i, array] of arrays.entries()) expect(array.every((value) => value === i + 1)).toBe(true);
    expect(new Set(arrays.map(({ buffer }) => buffer)).size).toBeLessThan(6);
  });

  test('begins at large pages, and then at lines, wherever the allocator puts a slab', () => {
    const toPage = new Int32Array(1);
    const backend = activeBackend();
    const told = (array: Float32Array) => {
      backend.run('largePages', { array, toPage, threads: 1 });
      return toPage[0]!;
    };
    const one = largeFloats(PAGE / 4);
    const at = told(one);
    expect(told(one.subarray(1))).toBe(backend.name === 'js' ? 0 : (at + PAGE - 4) % PAGE);
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    new Float32Array(6 << 20).fill(1); // one that is freed raises what malloc has a mapping of its own for
    for (let i = 0; i < 2; i++) collect();
    const held: Float32Array[] = [];
    for (let i = 0; i < 6; i++) {
      held.push(new Float32Array(100_004 + 4 * i).fill(1));
      const slabs = new Slabs();
      expect(told(slabs.floats(1))).toBe(0);
      for (const count of [100, 1000]) expect(told(slabs.floats(count)) % 64).toBe(0);
      const { buffer, byteOffset } = slabs.bytes(12);
      expect(told(new Float32Array(buffer, byteOffset, 3)) % 64).toBe(0);
    }
  });

  test('is its own for what fills large pages, and for what slabs have no room for', () => {
    const slabs = new Slabs();
    expect(slabs.bytes(PAGE).buffer.byteLength).toBe(PAGE);
    expect(slabs.floats(PAGE / 4).buffer.byteLength).toBe(PAGE);
    const almost = Array.from({ length: 4 }, () => slabs.bytes(PAGE - 1));
    for (const array of almost) expect(array.every((value) => value === 0)).toBe(true);
    expect(new Set(almost.map(({ buffer }) => buffer)).size).toBe(2); // one of two pages, one of four
  });

  test('is taken for codes and a bias that fit the layer alone', async () => {
    const q = quantizeSync(
      { data: new Float32Array(64 * 64).fill(1), dtype: 'float32', shape: [64, 64] },
      { nbits: 4 },
    );
    const panels = vi.fn();
    const read = (quantized: object, bias = new Float32Array(64)) => {
      const model = { load: async () => bias, loadQuantized: async () => quantized } as unknown as Model;
      const spec = { module: 'm', shape: [64, 64], bias: true } as const;
      return readLinear(model, spec, true, { activations: 'int8', threads: 1 }, { floats: largeFloats, panels });
    };
    const error = { code: 'ERR_INVALID_ARGUMENT' };
    await expect(read({ ...q, packed: q.packed.slice(1) })).rejects.toMatchObject(error);
    await expect(read(q, new Float32Array(63))).rejects.toMatchObject(error);
    expect(panels).not.toHaveBeenCalled();
  });

  test('is one for the layers of a model, which are smaller than a page', async () => {
    const model = await openFolderModel(coded);
    const weights = await readWeights(model, configOf(model), { head: 'int8', activations: 'int8', threads: 2 });
    await model.close();
    const layers = weights.blocks.flatMap(({ linears }) => linears.map(({ linear }) => linear as CodedLinear));
    expect(layers.length).toBeGreaterThan(10);
    expect(layers.every((layer) => layer instanceof CodedLinear && layer.layer.path === 'fused')).toBe(true);
    const buffers = layers.flatMap(({ layer }) => [layer.panels!.codes.buffer, layer.panels!.meta.buffer]);
    expect(new Set(buffers).size).toBe(1);
  });
});
