import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { dequantizeSync, quantizeSync } from '../../lib/compute/quantize.js';
import type { TensorSource } from '../../lib/containers/container.js';
import { openSource } from '../../lib/containers/list.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { finishShards, planConversion, writeShard } from '../../lib/models/quantize/shards.js';
import { loadTensors, saveTensors } from '../../lib/models/tensors.js';
import { expectSameBytes } from '../support/bytes.js';
import {
  encode,
  failure,
  freshPath,
  llama,
  modelFile,
  modelFolder,
  randomTensor,
  randomWeights,
  readBack,
} from '../support/checkpoints.js';
import { floats } from '../support/golden.js';

// Scales and zeros that are quantized themselves, in files.

const BYTES: QuantConfig = { metaBits: 8 };

/** A tensor of `modelFile` as `quantizeSync` gives it. */
function direct(shape: readonly [number, number], seed: number, config: QuantConfig) {
  return quantizeSync(
    { data: floats({ ...randomTensor(shape, seed), bytes: Uint8Array.from(randomTensor(shape, seed).bytes) }), shape },
    config,
  );
}

describe('the keys of a layer', () => {
  test.each([0, 1] as const)('axis %i: those of Python, its inner dictionaries behind a dot', async (axis) => {
    const out = freshPath('out.safetensors');
    await quantizeModel(modelFile({ 'x.weight': randomTensor([256, 128], 3), 'x.bias': randomTensor([256], 4) }), out, {
      axis,
      ...BYTES,
    });
    const tensors = readBack(out);
    const whole = axis === 1 ? [512, 1] : [1, 512];
    const read = (name: string) => {
      const { dtype, shape, bytes } = tensors.get(name)!;
      const numbers = { I32: Int32Array, F32: Float32Array, I64: BigInt64Array }[dtype];
      return [
        dtype,
        shape,
        numbers === undefined ? Buffer.from(bytes).toString('latin1') : [...new numbers(bytes.buffer)].map(Number),
      ];
    };
    const q = direct([256, 128], 3, { axis, ...BYTES });
    const { scale, zero } = q.meta as Required<NonNullable<typeof q.meta>>;
    const latin1 = (codes: Uint8Array) => Buffer.from(codes).toString('latin1');
    const wanted: Record<string, unknown> = {
      bias: ['F32', [256], [...floats(tensors.get('x.bias')!)]],
      scale_q: ['U8', [128, 4], latin1(scale.codes)],
      'meta_scale.scale': ['F32', [1, 4], [...scale.scale]],
      'meta_scale.zero': ['F32', [1, 4], [...scale.zero]],
      'meta_scale.group_size': ['I32', [], [128]],
      zero_q: ['U8', whole, latin1(zero.codes)],
      'meta_zero.scale': ['F32', [], [...zero.scale]],
      'meta_zero.zero': ['F32', [], [...zero.zero]],
      ...Object.fromEntries(
        ['meta_scale', 'meta_zero'].flatMap((meta) => [
          [`${meta}.nbits`, ['I32', [], [8]]],
          [`${meta}.axis`, ['I32', [], [0]]],
          [`${meta}.shape`, ['I64', [2], whole]],
          [`${meta}.packing`, ['U8', [7], '8bit_u8']],
          [`${meta}.unpack_view_dtype`, ['U8', [11], 'torch.uint8']],
          [`${meta}.view_as_float`, ['U8', [], '\0']],
          [`${meta}.compute_dtype`, ['U8', [13], 'torch.float32']],
        ]),
      ),
      quant_scale: ['U8', [], '\x01'],
      quant_zero: ['U8', [], '\x01'],
    };
    for (const [key, value] of Object.entries(wanted)) expect([key, read(`x.${key}`)]).toEqual([key, value]);
    expectSameBytes(tensors.get('x.W_q')!.bytes, q.packed);
    const others = [
      'W_q',
      'shape',
      'nbits',
      'group_size',
      'axis',
      'packing',
      'unpack_view_dtype',
      'compute_dtype',
      'view_as_float',
    ];
    const flags = [
      'offload_meta',
      'channel_wise',
      'optimize',
      'round_zero',
      'encoded_state_dict',
      'stores_quant_config',
    ];
    expect([...tensors.keys()].sort()).toEqual(
      [...Object.keys(wanted), ...others, ...flags].map((key) => `x.${key}`).sort(),
    );
  });

  test('config.json says how scales and zeros are quantized, and a note what Python makes of it', async () => {
    const out = freshPath();
    const report = await quantizeModel(modelFolder([llama()]), out, BYTES);
    const text = fs.readFileSync(`${out}/config.json`, 'utf8').replaceAll('Infinity', '0'); // which JSON has not
    const { quant_config } = JSON.parse(text).quantization_config;
    expect(quant_config.scale_quant_params).toEqual({
      axis: 0,
      nbits: 8,
      channel_wise: true,
      group_size: 64,
      optimize: false,
    });
    expect(quant_config.zero_quant_params).toEqual({
      axis: 0,
      nbits: 8,
      channel_wise: false,
      group_size: null,
      optimize: false,
    });
    expect(report.notes.join()).toContain('Scales and zeros are quantized themselves');
    expect(report.config.metaBits).toBe(8);
  });
});

/** Millions, which are compared as bytes. */
const NUMBERS = { packed: 0, scale: 0, zero: 0, meta: 0 };

describe('reading', () => {
  // The second one is read in chunks.
  test.each([
    [[256, 128], { axis: 1 }],
    [[256, 128], { axis: 0 }],
    [[2048, 2304], { axis: 1, groupSize: 96 }],
    [[2304, 2048], { axis: 0, nbits: 3 }],
    [[7, 63], {}],
  ] as const)('%j with %j: what quantize gives, in every way', async (shape, more) => {
    const config: QuantConfig = { ...more, ...BYTES };
    const input = modelFile({ 'x.weight': randomTensor(shape, 5), 'y.weight': randomTensor([96, 64], 6) });
    const out = freshPath('out.safetensors');
    const [report, second] = (await quantizeModel(input, out, config)).tensors;
    const { adapted: _, stats, ...q } = direct(shape, 5, config);
    expect(second!.name).toBe('y.weight');
    expect(report!.relativeError).toBeCloseTo(stats.relativeError, 12);
    const sizes = [
      q.packed.byteLength,
      ...Object.values(q.meta!).flatMap(({ codes, scale, zero }) =>
        [codes, scale, zero].map((part) => part.byteLength),
      ),
    ];
    expect(report!.bytesAfter).toBe(sizes.reduce((sum, size) => sum + size));

    const model = await openModel(out);
    const info = model.tensors.find(({ name }) => name === 'x.weight')!;
    expect(info.quantized).toMatchObject({ metaBits: 8, bitsPerWeight: report!.bitsPerWeight });
    for (const read of [model.quantized('x'), await model.loadQuantized('x')]) {
      expect({ ...read, ...NUMBERS }).toEqual({ ...q, ...NUMBERS, stats: read.stats });
      const numbers = ({ packed, scale, zero, meta }: typeof q) => {
        return [packed, scale, zero, ...[meta!.scale!, meta!.zero!].flatMap((one) => Object.values(one))];
      };
      numbers(read).forEach((array, index) => expectSameBytes(array, numbers(q)[index]!));
    }
    const weights = dequantizeSync(q);
    expectSameBytes(model.tensor('x'), weights);
    expectSameBytes(await model.load('x'), weights);
    await model.close();

    const back = freshPath('back.safetensors');
    await dequantizeModel(out, back);
    expectSameBytes(readBack(back).get('x.weight')!.bytes, weights);
    const { tensors } = await compareModels(input, out);
    const row = tensors.find(({ name }) => name === 'x.weight')!;
    expect(Math.abs(row.relativeError / report!.relativeError - 1)).toBeLessThan(1e-5);
  });

  test('a layer of which only the zeros are bytes, as older versions of Python wrote', async () => {
    const path = freshPath('bytes.safetensors');
    await quantizeModel(modelFile({ 'x.weight': randomTensor([64, 64], 3) }), path, BYTES);
    const tensors = readBack(path);
    const model = await openModel(path);
    const { scale, ...q } = model.quantized('x');
    await model.close();
    for (const key of [...tensors.keys()]) if (/meta_scale|scale_q/.test(key)) tensors.delete(key);
    tensors.set('x.quant_scale', { dtype: 'U8', shape: [], bytes: Uint8Array.of(0) });
    tensors.set('x.scale', { dtype: 'F32', shape: [64, 1], bytes: new Uint8Array(scale.buffer) });
    const mixed = await loadTensors(modelFile(Object.fromEntries(tensors)));
    const { stats, ...rest } = mixed['x.weight'] as typeof q & { scale: Float32Array };
    expect(rest).toMatchObject({ scale, zero: q.zero, packed: q.packed });
    expect(Object.keys(rest.meta!)).toEqual(['zero']);
    const again = freshPath('again.safetensors');
    await saveTensors(again, mixed); // wide, and exact
    expectSameBytes(((await loadTensors(again))['x.weight'] as typeof q).zero, q.zero);
  });

  const flaws: readonly (readonly [string, (tensors: ReturnType<typeof readBack>) => void, RegExp])[] = [
    ['no codes', (t) => t.delete('x.scale_q'), /no scale\./],
    ['no scale of the codes', (t) => t.delete('x.meta_scale.scale'), /no meta_scale\.scale/],
    [
      'numbers that are none',
      (t) => t.set('x.scale_q', { dtype: 'I8', shape: [64], bytes: new Uint8Array(64) }),
      /I8 \[64\] as scale_q/,
    ],
    [
      'too few codes',
      (t) => t.set('x.zero_q', { dtype: 'U8', shape: [63], bytes: new Uint8Array(63) }),
      /U8 \[63\] as zero_q/,
    ],
    [
      'other bits',
      (t) => t.set('x.meta_zero.nbits', { dtype: 'I32', shape: [], bytes: Uint8Array.of(4, 0, 0, 0) }),
      /meta_zero\.nbits 4/,
    ],
    [
      'another axis',
      (t) => t.set('x.meta_scale.axis', { dtype: 'I32', shape: [], bytes: Uint8Array.of(1, 0, 0, 0) }),
      /meta_scale\.axis 1/,
    ],
    [
      'sets that do not divide',
      (t) => t.set('x.meta_scale.group_size', { dtype: 'I32', shape: [], bytes: Uint8Array.of(48, 0, 0, 0) }),
      /meta_scale\.group_size 48/,
    ],
    [
      'sets of another count',
      (t) => t.set('x.meta_scale.group_size', { dtype: 'I32', shape: [], bytes: Uint8Array.of(32, 0, 0, 0) }),
      /where 2 floating-point/,
    ],
    [
      'a flag that lies',
      (t) => t.set('x.quant_zero', { dtype: 'U8', shape: [], bytes: Uint8Array.of(0) }),
      /has quant_zero 0 and no zero/,
    ],
  ];
  test.each(flaws)('refuses %s', async (_, spoil, message) => {
    const path = freshPath('bytes.safetensors');
    await quantizeModel(modelFile({ 'x.weight': randomTensor([64, 64], 3) }), path, BYTES);
    const tensors = readBack(path);
    spoil(tensors);
    const error = await failure(() => openModel(modelFile(Object.fromEntries(tensors))));
    expect(error.code).toBe('ERR_CHECKPOINT_FORMAT');
    expect(error.message).toMatch(message);
  });
});

test('shards that are written one by one are those of the whole', async () => {
  const input = modelFolder([llama()]);
  const [whole, parts] = [freshPath(), freshPath()];
  await quantizeModel(input, whole, BYTES);
  const plan = await planConversion(input, BYTES);
  const paths = new Map(plan.shards.map(({ file }) => [file, freshPath(file)]));
  const results = [];
  for (const [file, path] of paths) results.push(await writeShard(JSON.parse(JSON.stringify(plan)), file, input, path));
  await finishShards(plan, { input, results, paths, output: parts });
  for (const { file } of plan.shards)
    expectSameBytes(fs.readFileSync(`${parts}/${file}`), fs.readFileSync(`${whole}/${file}`));
});

test('a weight that is not finite is named, in a layer of several chunks too', async () => {
  for (const shape of [
    [64, 64],
    [2304, 2048],
  ] as const) {
    const tensor = randomTensor(shape, 5);
    new Float32Array(tensor.bytes.buffer)[shape[0] * shape[1] - 2] = Infinity;
    const error = await failure(() =>
      quantizeModel(modelFile({ 'x.weight': tensor }), freshPath('out.safetensors'), BYTES),
    );
    expect(error.code).toBe('ERR_NON_FINITE_WEIGHT');
    expect(error.message).toContain(`Infinity at row ${shape[0] - 1}, column ${shape[1] - 2}`);
  }
});

test('a layer that fails before it is looked at ends the run, whose next layer waits for it', async () => {
  const weights = { a: 1, b: 2, c: 3 };
  const tensors = Object.entries(weights).map(
    ([name, seed]) => [`${name}.weight`, randomTensor([64, 64], seed)] as const,
  );
  const input = modelFolder([Object.fromEntries(tensors)]);
  const opened = await openSource(input);
  const kind = Object.getPrototypeOf(opened) as Pick<TensorSource, 'chosen'>;
  await opened.close();
  kind.chosen = async ({ name }) => {
    if (name !== 'a.weight') return undefined;
    await new Promise((resolve) => setTimeout(resolve, 200)); // the next one waits by then
    throw new Error('the state cannot be read');
  };
  try {
    const error = await failure(() => quantizeModel(input, freshPath('out'), { ...BYTES, importance: 'none' }));
    expect(error.message).toContain('the state cannot be read');
  } finally {
    delete (kind as { chosen?: unknown }).chosen;
  }
}, 10_000);

test('metaDtype is the type of biases', async () => {
  const input = modelFile({ 'x.weight': randomTensor([64, 64], 3), 'x.bias': randomTensor([64], 4) });
  for (const [metaDtype, stored] of [
    ['auto', 'F32'],
    ['float32', 'F32'],
    ['float16', 'F16'],
  ] as const) {
    const out = freshPath('out.safetensors');
    await quantizeModel(input, out, { ...BYTES, metaDtype });
    const tensors = readBack(out);
    expect([tensors.get('x.bias')!.dtype, tensors.get('x.meta_scale.scale')!.dtype]).toEqual([stored, 'F32']);
  }
});

describe('saveTensors', () => {
  const shape = [64, 64] as const;
  const q = quantizeSync({ data: randomWeights(4096, 3), shape }, BYTES);

  test('keeps the bytes, and loadTensors gives them back', async () => {
    const path = freshPath('out.safetensors');
    await saveTensors(path, { q });
    const { stats, ...kept } = (await loadTensors(path)).q as typeof q;
    const { stats: _, ...wanted } = q;
    expect(kept).toEqual(wanted);
    expect(fs.statSync(path).size).toBeLessThan(encode({}).length + 2048 + 128 + 8 * 2 + 4096);
  });

  test('refuses bytes that stand for other scales', async () => {
    const scale = q.scale.map((s) => s * 2);
    const error = await failure(() => saveTensors(freshPath('out.safetensors'), { q: { ...q, scale } }));
    expect(error.message).toMatch(/Expected scale to be what meta\.scale stands for/);
    const { meta: _, ...without } = q;
    await saveTensors(freshPath('out.safetensors'), { q: { ...without, scale } });
  });
});
