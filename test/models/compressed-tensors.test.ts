import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { dequantizeSync } from '../../lib/compute/quantize.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  failure,
  freshPath,
  llama,
  modelFile,
  modelFolder,
  numbersOf,
  randomTensor,
  readBack,
  type Source,
  type SourceTensor,
  tensorOf,
} from '../support/checkpoints.js';

// What compressed-tensors loads, by the bytes that its library writes and reads: known answers, and a reader of its own few lines.

type Options = QuantConfig & ModelOptions;

const CT = { to: 'compressed-tensors' } as const;

/** Bit `at` and those after it of little-endian words. */
function bitsAt(words: DataView, at: number, bits: number): number {
  let value = 0;
  for (let i = 0; i < bits; i++) value |= ((words.getUint8((at + i) >> 3) >> ((at + i) & 7)) & 1) << i;
  return value;
}

/** The weights of a layer, as the format says: one code after the other. */
function decode(tensors: ReturnType<typeof readBack>, name: string, bits: number): Float32Array {
  const view = (key: string) => {
    const { bytes } = tensors.get(`${name}.${key}`)!;
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  const shape = view('weight_shape');
  const [outs, ins] = [Number(shape.getBigInt64(0, true)), Number(shape.getBigInt64(8, true))];
  const packed = tensors.get(`${name}.weight_packed`)!;
  expect(packed.shape).toEqual([outs, Math.ceil((ins * bits) / 32)]);
  const [, groups] = tensors.get(`${name}.weight_scale`)!.shape as [number, number];
  const scale = numbersOf(tensors.get(`${name}.weight_scale`)!);
  const codes = view('weight_packed');
  const zeros = tensors.has(`${name}.weight_zero_point`) ? view('weight_zero_point') : undefined;
  const weights = new Float32Array(outs * ins);
  for (let row = 0; row < outs; row++) {
    for (let col = 0; col < ins; col++) {
      const group = Math.floor(col / (ins / groups));
      const code = bitsAt(codes, row * packed.shape[1]! * 32 + col * bits, bits);
      // Down a column: bit i of its stream is bit i % 32 of its word i / 32.
      let zero = zeros ? 0 : 2 ** (bits - 1);
      for (let i = 0; zeros && i < bits; i++) {
        const at = row * bits + i;
        zero |= ((zeros.getUint32(((at >> 5) * groups + group) * 4, true) >>> (at & 31)) & 1) << i;
      }
      weights[row * ins + col] = Math.fround((code - zero) * scale[row * groups + group]!);
    }
  }
  return weights;
}

const quantizationOf = (folder: string) =>
  JSON.parse(fs.readFileSync(join(folder, 'config.json'), 'utf8').replace('Infinity', '1')).quantization_config;

describe('a model as compressed-tensors', () => {
  const cases: readonly (readonly [string, Options])[] = [
    ...([8, 6, 5, 4, 3, 2] as const).flatMap((nbits) => [
      [`${nbits} bits, symmetric`, { nbits, groupSize: 32 }] as const,
      [`${nbits} bits, integer zeros`, { nbits, groupSize: 32, zeroPoint: 'integer' }] as const,
    ]),
    ['whole rows', { groupSize: null }],
    ['float32 scales', { scaleDtype: 'float32' }],
    ['round to nearest', { solver: 'minmax', zeroPoint: 'integer' }],
  ];
  test.each(cases)('%s: the bytes are those of the format, and read as what they are', async (_, options) => {
    const source = llama();
    const input = modelFolder([source]);
    const out = freshPath('out');
    const report = await quantizeModel(input, out, { ...CT, ...options });
    const tensors = readBack(join(out, 'model.safetensors'));
    const model = await openModel(out);
    let [squares, errors] = [0, 0];
    for (const { name, config, packing, metaDtype } of report.tensors) {
      const layer = name.slice(0, -'.weight'.length);
      const weights = decode(tensors, layer, config.nbits);
      expect(tensors.has(name)).toBe(false);
      expect([packing, metaDtype]).toEqual(['pack-quantized', options.scaleDtype ?? 'float16']);
      expect(model.tensor(name)).toEqual(weights);
      expect(await model.load(name)).toEqual(weights);
      expect(dequantizeSync(model.quantized(name))).toEqual(weights);
      const original = numbersOf(source[name]!);
      for (const [i, weight] of original.entries()) {
        squares += weight ** 2;
        errors += (weight - weights[i]!) ** 2;
      }
    }
    await model.close();
    expect(report.totals.relativeError).toBeCloseTo(Math.sqrt(errors / squares), 6);
    expect((await compareModels(input, out)).totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    const back = freshPath('back');
    await dequantizeModel(out, back);
    expect(readBack(join(back, 'model.safetensors')).size).toBe(Object.keys(source).length);
    expect(quantizationOf(back)).toBeUndefined();
  });

  test('says so in config.json: what stays, and symmetric zeros', async () => {
    const out = freshPath('out');
    await quantizeModel(modelFolder([llama()]), out, { ...CT, exclude: '*.layers.1.mlp.down_proj.weight' });
    const { config_groups: groups, ...rest } = quantizationOf(out);
    expect(rest).toEqual({
      ...{ quant_method: 'compressed-tensors', format: 'pack-quantized', quantization_status: 'compressed' },
      ignore: ['lm_head', 'model.layers.1.mlp.down_proj'],
      ...{ kv_cache_scheme: null, global_compression_ratio: null },
    });
    expect(groups.group_0.weights).toEqual({
      ...{ num_bits: 4, type: 'int', symmetric: true, strategy: 'group', group_size: 64, dynamic: false },
    });
  });

  test('with integer zeros it says the two words that transformers needs', async () => {
    const out = freshPath('out');
    await quantizeModel(modelFolder([llama()]), out, { ...CT, zeroPoint: 'integer' });
    expect(quantizationOf(out)).toMatchObject({ dequantize: true, run_compressed: false });
  });

  test('names the layers that are stored differently before all others', async () => {
    const out = freshPath('out');
    const overrides = { '*.down_proj': { nbits: 8 } } as const;
    await quantizeModel(modelFolder([llama()]), out, { ...CT, overrides });
    const { group_0: first, group_1: last } = quantizationOf(out).config_groups;
    expect(first.targets).toEqual(['model.layers.0.mlp.down_proj', 'model.layers.1.mlp.down_proj']);
    expect([first.weights.num_bits, last.weights.num_bits, last.targets]).toEqual([8, 4, ['Linear']]);
    const mixed = failure(() =>
      quantizeModel(modelFolder([llama()]), freshPath('out'), { ...CT, overrides, zeroPoint: 'integer' }),
    );
    await expect(mixed).resolves.toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: /same bits, groups/ });
  });

  test('takes the type of scales from the model, and tells what bfloat16 costs at 8 bits', async () => {
    const config = '{ "model_type": "llama", "torch_dtype": "bfloat16" }';
    const report = await quantizeModel(modelFolder([llama('bfloat16')], { config }), freshPath('out'), {
      ...CT,
      nbits: 8,
    });
    expect(report.tensors[0]!.metaDtype).toBe('bfloat16');
    expect(report.notes.join()).toMatch(/bfloat16.*third/);
  });

  test('notes parts of fused layers that differ', async () => {
    const overrides = { '*.q_proj': { nbits: 8 } } as const;
    const source = { 'a.q_proj.weight': randomTensor([64, 64], 1), 'a.k_proj.weight': randomTensor([64, 64], 2) };
    const report = await quantizeModel(modelFolder([source]), freshPath('out'), { ...CT, overrides });
    expect(report.notes.join()).toMatch(/q_proj, k_proj, v_proj as one layer/);
  });

  test('keeps biases, routers of experts and what is no nn.Linear as they are', async () => {
    const source: Source = {
      'l.mlp.gate.weight': randomTensor([8, 64], 1),
      'l.mlp.up_proj.weight': randomTensor([64, 64], 2),
      'l.mlp.up_proj.bias': randomTensor([64], 3),
    };
    const out = freshPath('out');
    const report = await quantizeModel(modelFolder([source]), out, { ...CT });
    expect(report.dense.map(({ name, reason }) => [name, /router/.test(reason)])).toContainEqual([
      'l.mlp.gate.weight',
      true,
    ]);
    const tensors = readBack(join(out, 'model.safetensors'));
    expect(tensors.get('l.mlp.up_proj.bias')!.bytes).toEqual(source['l.mlp.up_proj.bias']!.bytes);
    expect(quantizationOf(out).ignore).toContain('l.mlp.gate');
  });

  test('takes groups that divide rows: halves, else whole rows; with integer zeros such layers stay', async () => {
    const source = {
      'l.a.weight': randomTensor([4, 96], 1),
      'l.b.weight': randomTensor([4, 172], 2),
      'l.c.weight': randomTensor([4, 128], 3),
    };
    const report = await quantizeModel(modelFolder([source]), freshPath('out'), { ...CT });
    expect(report.tensors.map(({ config }) => config.groupSize)).toEqual([32, 172, 64]);
    const out = freshPath('out');
    const integer = await quantizeModel(modelFolder([source]), out, { ...CT, zeroPoint: 'integer' });
    expect(integer.tensors.map(({ name }) => name)).toEqual(['l.c.weight']);
    expect(quantizationOf(out).ignore).toEqual(expect.arrayContaining(['l.a', 'l.b']));
    const asked = failure(() => quantizeModel(modelFolder([source]), freshPath('out'), { ...CT, groupSize: 64 }));
    await expect(asked).resolves.toMatchObject({ code: 'ERR_GROUP_SIZE' });
  });

  test.each<readonly [string, Options, RegExp]>([
    [
      'a solver of float zeros',
      { solver: 'hqq' },
      /solver to be one of .*joint.* compressed-tensors, which holds no floating-point/,
    ],
    ['float zeros', { zeroPoint: 'float' }, /zeroPoint to be one of symmetric, integer/],
    ['1 bit', { nbits: 1 }, /nbits to be one of/],
    ['axis 0', { axis: 0 }, /axis to be 1/],
    ['bytes of scales', { metaBits: 8 }, /metaBits to be 16/],
    ['one group', { granularity: 'tensor' }, /granularity/],
    ['an override', { overrides: { '*': { zeroPoint: 'float' } } }, /overrides\["\*"\]: .*zeroPoint/],
    ['two types of scales', { scaleDtype: 'float16', metaDtype: 'float32' }, /metaDtype to be float16/],
    ['another format', { to: 'exl2' }, /to to be one of hqq, compressed-tensors/],
  ])('refuses %s, before anything is read', async (_, options, message) => {
    const error = await failure(() => quantizeModel('/nowhere', freshPath('out'), { ...CT, ...options }));
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) });
  });
});

describe('folders of other tools', () => {
  const words = (values: readonly number[], shape: readonly number[]): SourceTensor => ({
    ...{ dtype: 'I32', shape, bytes: new Uint8Array(Int32Array.from(values).buffer) },
  });
  const shapeOf = (outs: number, ins: number): SourceTensor => ({
    ...{ dtype: 'I64', shape: [2], bytes: new Uint8Array(BigInt64Array.of(BigInt(outs), BigInt(ins)).buffer) },
  });

  test('whole codes in words, as releases before 0.18 have 3 bits', async () => {
    const codes = Array.from({ length: 32 }, (_, i) => (i * 5) % 8);
    const packed = [0, 1, 2, 3].map((word) =>
      codes.slice(word * 10, word * 10 + 10).reduce((all, code, i) => all | (code << (3 * i)), 0),
    );
    const config = '{ "quantization_config": { "config_groups": { "a": { "weights": { "num_bits": 3 } } } } }';
    const source = {
      'x.weight_packed': words(packed, [1, 4]),
      'x.weight_scale': tensorOf([0.5], [1, 1]),
      'x.weight_shape': shapeOf(1, 32),
    };
    const path = modelFolder([source], { config });
    const model = await openModel(path);
    expect([...model.tensor('x.weight')]).toEqual(codes.map((code) => (code - 4) * 0.5));
    await model.close();
  });

  test('groups of features that are no neighbours', async () => {
    const path = modelFile({
      'x.weight_packed': words([0x76543210], [1, 1]),
      'x.weight_scale': tensorOf([1, 10], [1, 2]),
      'x.weight_shape': shapeOf(1, 8),
      'x.weight_g_idx': words([0, 1, 0, 1, 0, 1, 0, 1], [8]),
    });
    const expected = [-8, -70, -6, -50, -4, -30, -2, -10];
    const model = await openModel(path);
    expect([...model.tensor('x.weight')]).toEqual(expected);
    const product = model.linear('x').forwardSync(Float32Array.of(1, 0, 0, 2, 0, 0, 0, 0));
    expect(product[0]).toBeCloseTo(-8 - 100, 4);
    await model.close();
    const back = freshPath('back.safetensors');
    await dequantizeModel(path, back);
    expect([...numbersOf(readBack(back).get('x.weight')!)]).toEqual(expected);
  });

  test.each<readonly [string, Source, RegExp]>([
    ['no scale', { 'x.weight_scale': undefined! }, /no weight_scale/],
    ['codes of another size', { 'x.weight_packed': words([1, 2, 3], [1, 3]) }, /does not hold 1 x 8 codes/],
    ['a shape of none', { 'x.weight_shape': shapeOf(0, 8) }, /two positive numbers/],
    ['groups that do not divide', { 'x.weight_scale': tensorOf([1, 1, 1], [1, 3]) }, /3 groups, which do not divide 8/],
    ['zeros of another size', { 'x.weight_zero_point': words([1, 1], [2, 1]) }, /weight_zero_point/],
    ['a group that there is not', { 'x.weight_g_idx': words([0, 0, 0, 0, 0, 0, 0, 7], [8]) }, /weight_g_idx 7 at 7/],
    [
      'groups of other sizes',
      { 'x.weight_scale': tensorOf([1, 1], [1, 2]), 'x.weight_g_idx': words([1, 0, 0, 0, 0, 0, 0, 0], [8]) },
      /7 features in group 0/,
    ],
    ['a weight beside codes', { 'x.weight': randomTensor([1, 8], 1) }, /both a weight and codes/],
  ])('%s: refused', async (_, change, message) => {
    const whole: Record<string, SourceTensor | undefined> = {
      'x.weight_packed': words([0x76543210], [1, 1]),
      'x.weight_scale': tensorOf([1], [1, 1]),
      'x.weight_shape': shapeOf(1, 8),
      ...change,
    };
    const tensors = Object.fromEntries(Object.entries(whole).filter(([, tensor]) => tensor !== undefined)) as Source;
    const error = await failure(() => openModel(modelFile(tensors)));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT', message: expect.stringMatching(message) });
  });
});
