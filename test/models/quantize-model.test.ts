import * as fs from 'node:fs';
import { basename } from 'node:path';
import { describe, expect, it } from 'vitest';
import { halfOfFloat } from '../../lib/backend/js/lanes.js';
import { quantizeSync } from '../../lib/compute/quantize.js';
import { storedFloat } from '../../lib/containers/stored-types.js';
import { NBITS, type QuantConfig } from '../../lib/matrix/config.js';
import { DTYPES, type DType } from '../../lib/matrix/dtype.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  beside,
  encode,
  failure,
  freshPath,
  llama,
  modelFolder,
  numbersOf,
  randomTensor,
  readBack,
  type Source,
  tensorOf,
} from '../support/checkpoints.js';

const LAYER = 'model.layers.0.self_attn.q_proj';

/** Bytes of what `quantizeSync` gives for a tensor. */
function direct(source: Source, name: string, config: QuantConfig, meta: 'float16' | 'float32' = 'float16') {
  const { dtype, shape, bytes } = source[name]!;
  const kind = (Object.keys(DTYPES) as DType[]).find((row) => storedFloat(row).name === dtype)!;
  const copy = Uint8Array.from(bytes).buffer;
  const data = kind === 'float32' ? new Float32Array(copy) : new Uint16Array(copy);
  const q = quantizeSync({ data, dtype: kind, shape: shape as [number, number] }, config);
  const stored = (values: Float32Array) => (meta === 'float32' ? values : Uint16Array.from(values, halfOfFloat));
  const hex = (array: ArrayBufferView) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString('hex');
  return { W_q: hex(q.packed), scale: hex(stored(q.scale)), zero: hex(stored(q.zero)), stats: q.stats };
}

/** The large tensors of a layer, as they were written. */
const stored = (tensors: ReturnType<typeof readBack>, module: string) =>
  Object.fromEntries(['W_q', 'scale', 'zero'].map((key) => [key, hexOf(tensors, `${module}.${key}`)]));
const hexOf = (tensors: ReturnType<typeof readBack>, name: string) =>
  Buffer.from(tensors.get(name)!.bytes).toString('hex');

describe('the keys of a layer', () => {
  const expected: Record<string, { packing: string; view: string; dtype: string; fields: number }> = {
    8: { packing: '8bit_u8', view: 'torch.uint8', dtype: 'U8', fields: 1 },
    6: { packing: '8bit_u8', view: 'torch.uint8', dtype: 'U8', fields: 1 },
    5: { packing: '8bit_u8', view: 'torch.uint8', dtype: 'U8', fields: 1 },
    4: { packing: '4bit_u8', view: 'torch.uint8', dtype: 'U8', fields: 2 },
    3: { packing: '3bit_32', view: 'torch.int32', dtype: 'I32', fields: 10 },
    2: { packing: '2bit_u8', view: 'torch.uint8', dtype: 'U8', fields: 4 },
    1.58: { packing: '2bit_u8', view: 'torch.uint8', dtype: 'U8', fields: 4 },
    1: { packing: '1bit_u8', view: 'torch.uint8', dtype: 'U8', fields: 8 },
  };
  for (const nbits of NBITS) {
    for (const axis of [0, 1] as const) {
      it(`${nbits} bits, axis ${axis}: names, dtypes, shapes and values as Python writes them`, async () => {
        const source = { 'x.y.weight': randomTensor([64, 64], 3) };
        const out = freshPath('out.safetensors');
        const input = freshPath('in.safetensors');
        fs.writeFileSync(input, encode(source));
        await quantizeModel(input, out, { nbits, axis });
        const tensors = readBack(out);
        const { packing, view, dtype, fields } = expected[nbits]!;
        const meta = axis === 1 ? [64, 1] : [1, 64];
        const text = (value: string) => ({
          dtype: 'U8',
          shape: [value.length],
          hex: Buffer.from(value).toString('hex'),
        });
        const flag = (value: number) => ({ dtype: 'U8', shape: [], hex: value === 1 ? '01' : '00' });
        const int = (value: number) => ({
          dtype: 'I32',
          shape: [],
          hex: Buffer.from(Int32Array.of(value).buffer).toString('hex'),
        });
        const float = { dtype: 'F32', shape: [], hex: Buffer.from(Float32Array.of(1.58).buffer).toString('hex') };
        const wanted: Record<string, { dtype: string; shape: readonly number[]; hex?: string }> = {
          W_q: { dtype, shape: [Math.ceil(64 / fields), 64] },
          scale: { dtype: 'F16', shape: meta },
          zero: { dtype: 'F16', shape: meta },
          shape: { dtype: 'I64', shape: [2], hex: Buffer.from(BigInt64Array.of(64n, 64n).buffer).toString('hex') },
          nbits: nbits === 1.58 ? float : int(nbits),
          group_size: int(64),
          axis: int(axis),
          packing: text(packing),
          unpack_view_dtype: text(view),
          compute_dtype: text('torch.float16'),
          view_as_float: flag(0),
          quant_scale: flag(0),
          quant_zero: flag(0),
          offload_meta: flag(0),
          channel_wise: flag(1),
          optimize: flag(1),
          round_zero: flag(0),
          encoded_state_dict: flag(1),
          stores_quant_config: flag(1),
        };
        expect([...tensors.keys()].sort()).toEqual(
          Object.keys(wanted)
            .map((key) => `x.y.${key}`)
            .sort(),
        );
        for (const [key, { hex, ...rest }] of Object.entries(wanted)) {
          expect({ key, ...tensors.get(`x.y.${key}`) }).toMatchObject({ key, ...rest });
          if (hex !== undefined) expect([key, hexOf(tensors, `x.y.${key}`)]).toEqual([key, hex]);
        }
      });
    }
  }

  it('tells the truth of solver and roundZero, and writes float32 when told to', async () => {
    const folder = modelFolder([llama()]);
    const out = freshPath();
    await quantizeModel(folder, out, { solver: 'minmax', roundZero: true, metaDtype: 'float32' });
    const tensors = readBack(out);
    expect(hexOf(tensors, `${LAYER}.optimize`)).toBe('00');
    expect(hexOf(tensors, `${LAYER}.round_zero`)).toBe('01');
    expect(tensors.get(`${LAYER}.scale`)!.dtype).toBe('F32');
    expect(Buffer.from(tensors.get(`${LAYER}.compute_dtype`)!.bytes).toString()).toBe('torch.float32');
    expect(tensors.get(`${LAYER}.bias`)!.dtype).toBe('F32');
  });
});

describe('the bytes of a layer are those of quantize', () => {
  for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
    for (const nbits of [8, 4, 3, 2, 1.58, 1] as const) {
      it(`${dtype}, ${nbits} bits, both axes`, async () => {
        const source = llama(dtype, nbits * 10);
        for (const axis of [0, 1] as const) {
          const config = { nbits, axis, groupSize: 32 };
          const out = freshPath();
          const report = await quantizeModel(modelFolder([source]), out, config);
          const tensors = readBack(out);
          expect(report.tensors).toHaveLength(8);
          for (const { name, meanAbsError } of report.tensors) {
            const module = name.slice(0, -7);
            const { stats, ...want } = direct(source, name, config);
            expect(stored(tensors, module)).toEqual(want);
            expect(Math.abs(meanAbsError - stats.meanAbsError) / stats.meanAbsError).toBeLessThan(0.02);
          }
        }
      });
    }
  }

  // Larger than a chunk, with ends that are whole multiples of nothing.
  const large = [
    [4, 1, [2306, 1024]],
    [3, 1, [2307, 1024]],
    [3, 0, [2307, 1024]],
    [2, 0, [1028, 2368]],
  ] as const;
  for (const [nbits, axis, shape] of large) {
    it(`in chunks: ${nbits} bits, axis ${axis}`, async () => {
      const source = { 'a.weight': randomTensor(shape, 5, 'bfloat16') };
      const input = freshPath('big.safetensors');
      fs.writeFileSync(input, encode(source));
      const out = freshPath('out.safetensors');
      const seen: number[] = [];
      await quantizeModel(input, out, { nbits, axis, onProgress: ({ weightsDone }) => seen.push(weightsDone) });
      const tensors = readBack(out);
      const { stats: _, ...want } = direct(source, 'a.weight', { nbits, axis });
      for (const [key, hex] of Object.entries(want)) expect(hexOf(tensors, `a.${key}`) === hex, key).toBe(true);
      expect(seen.at(-1)).toBe(shape[0] * shape[1]);
      if (axis === 1) expect(seen.length).toBeGreaterThan(1);
    });
  }
});

describe('layers that do not pack', () => {
  it('say so in the report, and pack what they say', async () => {
    const source = {
      'a.weight': randomTensor([13, 64], 1),
      'b.weight': randomTensor([3, 5], 2),
      'c.weight': randomTensor([64, 64], 3),
    };
    const out = freshPath();
    const report = await quantizeModel(modelFolder([source]), out);
    expect(report.tensors.map(({ adapted, config }) => [config.groupSize, adapted])).toEqual([
      [32, 'group size 32: 13 groups of 64 do not pack into 4bit_u8'],
      [15, 'group size 15, stored as 8bit_u8: groups of 64 do not divide 3 x 5 weights'],
      [64, undefined],
    ]);
    expect(report.dense).toEqual([]);
    const tensors = readBack(out);
    expect(hexOf(tensors, 'a.W_q')).toBe(direct(source, 'a.weight', { groupSize: 32 }).W_q);
    expect(hexOf(tensors, 'b.W_q')).toBe(direct(source, 'b.weight', {}).W_q);
  });
});

describe('scales and zeros', () => {
  const wide = (value: number) => {
    const weights = numbersOf(randomTensor([64, 64], 4));
    weights[100] = value;
    return tensorOf(weights, [64, 64]);
  };
  it('are float32 in the layers that float16 does not hold, and only there', async () => {
    const tiny = tensorOf(
      numbersOf(randomTensor([64, 64], 5)).map((w) => w * 1e-7),
      [64, 64],
    );
    // A zero far from the codes: weights that are nearly all the same.
    const far = tensorOf(
      numbersOf(randomTensor([64, 64], 6)).map((w) => 40 + w * 0.1),
      [64, 64],
    );
    const source = {
      'a.weight': randomTensor([64, 64], 7),
      'big.weight': wide(3e6),
      'tiny.weight': tiny,
      'far.weight': far,
    };
    const out = freshPath();
    const seen: number[] = [];
    const report = await quantizeModel(modelFolder([source]), out, {
      onProgress: ({ weightsDone, weightsTotal }) => seen.push(weightsDone / weightsTotal),
    });
    const types = Object.fromEntries(report.tensors.map(({ name, metaDtype }) => [name, metaDtype]));
    expect(types).toEqual({
      'a.weight': 'float16',
      'big.weight': 'float32',
      'tiny.weight': 'float32',
      'far.weight': 'float32',
    });
    const tensors = readBack(out);
    expect(tensors.get('a.scale')!.dtype).toBe('F16');
    for (const name of ['big', 'tiny', 'far']) {
      const { stats, ...want } = direct(source, `${name}.weight`, {}, 'float32');
      expect(stored(tensors, name)).toEqual(want);
      expect(report.tensors.find((row) => row.name === `${name}.weight`)!.meanAbsError).toBeCloseTo(
        stats.meanAbsError,
        12,
      );
    }
    expect(seen.at(-1)).toBe(1);
    expect(beside(out)).toEqual([basename(out)]);
  });

  it('forced into float16 fail where they overflow, and lose precision where told to', async () => {
    const folder = modelFolder([{ 'big.weight': wide(3e6) }]);
    const out = freshPath();
    const error = await failure(() => quantizeModel(folder, out, { metaDtype: 'float16' }));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringContaining('"big.scale"') });
    expect(beside(out)).toEqual([]);
    const tiny = modelFolder([
      {
        'tiny.weight': tensorOf(
          numbersOf(randomTensor([64, 64], 5)).map((w) => w * 1e-5),
          [64, 64],
        ),
      },
    ]);
    expect((await quantizeModel(tiny, out, { metaDtype: 'float16' })).tensors[0]!.metaDtype).toBe('float16');
  });

  it('are float32 where a group of equal, tiny weights would vanish', async () => {
    for (const value of [1e-8, -3e-6]) {
      const report = await quantizeModel(
        modelFolder([
          { 'a.weight': tensorOf(new Array(128 * 64).fill(value), [128, 64]), 'b.weight': randomTensor([64, 64], 1) },
        ]),
        freshPath(),
      );
      expect(report.tensors.map(({ metaDtype }) => metaDtype)).toEqual(['float32', 'float16']);
      expect(report.tensors[0]!.relativeError).toBeLessThan(1e-6);
    }
    const zeros = { 'a.weight': tensorOf(new Array(64 * 64).fill(0), [64, 64]) };
    const half = { 'a.weight': tensorOf(new Array(64 * 64).fill(0.3), [64, 64]) };
    for (const source of [zeros, half]) {
      expect((await quantizeModel(modelFolder([source]), freshPath())).tensors[0]!.metaDtype).toBe('float16');
    }
  });

  it('are float32 where the whole bias is tiny, not where a part of it is', async () => {
    const run = async (bias: number[]) => {
      const source = { 'a.weight': randomTensor([64, 64], 1), 'a.bias': tensorOf(bias, [64]) };
      return (await quantizeModel(modelFolder([source]), freshPath())).tensors[0]!.metaDtype;
    };
    expect(await run(new Array(64).fill(1e-8))).toBe('float32');
    expect(await run([0.1, ...new Array(63).fill(1e-8)])).toBe('float16');
    expect(await run(new Array(64).fill(0))).toBe('float16');
  });

  it.each([
    [NaN, 'is NaN'],
    [-Infinity, 'is -Infinity'],
    [1e6, 'overflows'],
  ])('forced into float16 tell what is wrong with a bias of %s', async (value, fault) => {
    const source = {
      'a.weight': randomTensor([64, 64], 1),
      'a.bias': tensorOf([value, ...new Array(63).fill(1)], [64]),
    };
    const error = await failure(() => quantizeModel(modelFolder([source]), freshPath(), { metaDtype: 'float16' }));
    expect(error.message).toContain(`"a.bias" to fit into float16, but a value of it ${fault}`);
  });

  it('follow a bias that float16 cannot hold', async () => {
    const source = { 'a.weight': randomTensor([64, 64], 1), 'a.bias': tensorOf([1e6, ...new Array(63).fill(1)], [64]) };
    const out = freshPath();
    const report = await quantizeModel(modelFolder([source]), out);
    expect(report.tensors[0]!.metaDtype).toBe('float32');
    expect(numbersOf(readBack(out).get('a.bias')!)[0]).toBe(1e6);
  });
});
