import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { floatOfHalf, halfOfFloat } from '../../lib/backend/js/lanes.js';
import { dequantizeSync } from '../../lib/compute/quantize.js';
import { quantizeModel as quantizeWeighed } from '../../lib/index.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
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

// Folders of AWQ, GPTQ, torchao and compressed-tensors that are not what they say, and what files say of their tensors.

const words = (shape: readonly number[], value = 0): SourceTensor => ({
  ...{ dtype: 'I32', shape },
  bytes: new Uint8Array(new Int32Array(shape.reduce((product, size) => product * size, 1)).fill(value).buffer),
});
const bytes = (shape: readonly number[], value = 0): SourceTensor => ({
  ...{ dtype: 'I8', shape, bytes: new Uint8Array(shape.reduce((product, size) => product * size, 1)).fill(value) },
});
const ones = (rows: number, cols: number) => tensorOf(new Array(rows * cols).fill(1), [rows, cols]);

/** Layers of 8 outputs and 16 inputs, in groups of 8. */
const FORMATS = {
  awq: [
    { 'x.qweight': words([16, 1]), 'x.qzeros': words([2, 1]), 'x.scales': ones(2, 8) },
    { quant_method: 'awq', bits: 4, group_size: 8, version: 'gemm' },
  ],
  gptq: [
    { 'x.qweight': words([2, 8]), 'x.qzeros': words([2, 1]), 'x.scales': ones(2, 8) },
    { quant_method: 'gptq', bits: 4, group_size: 8, sym: true },
  ],
  torchao: [
    { 'x._weight_qdata': bytes([8, 16]), 'x._weight_scale': ones(8, 2), 'x._weight_zero_point': bytes([8, 2]) },
    { quant_method: 'torchao', quant_type: { default: { _data: 'int4' } } },
  ],
  'compressed-tensors': [
    {
      ...{ 'x.weight_packed': words([8, 2]), 'x.weight_scale': ones(8, 2) },
      'x.weight_shape': {
        ...{ dtype: 'I64', shape: [2] },
        bytes: new Uint8Array(BigInt64Array.of(8n, 16n).buffer),
      },
    },
    { config_groups: { group_0: { weights: { num_bits: 4, group_size: 8 } } } },
  ],
} as const satisfies Record<string, readonly [Source, object]>;

type Format = keyof typeof FORMATS;

const folderOf = (format: Format, change: Source = {}, said: object = {}) => {
  const [source, config] = FORMATS[format];
  const text = JSON.stringify({ model_type: 'llama', quantization_config: { ...config, ...said } });
  return modelFolder([{ ...source, ...change }], { config: text });
};

/** A configuration of compressed-tensors that says this of weights. */
const weights = (said: object) => ({ config_groups: { group_0: { weights: said } } });

describe('of formats of engines', () => {
  test.each(Object.keys(FORMATS) as Format[])('%s that is what it says is read', async (format) => {
    const model = await openModel(folderOf(format));
    expect(model.tensor('x.weight')).toHaveLength(8 * 16);
    await model.close();
  });

  test.each<readonly [Format, string, Source, object, RegExp]>([
    ['awq', 'zeros of another size', { 'x.qzeros': words([3, 1]) }, {}, /I32 \[3, 1\] as qzeros/],
    ['awq', 'a flat scale', { 'x.scales': { ...ones(2, 8), dtype: 'I32' } }, {}, /as scales, where floating-point/],
    ['awq', 'no bits', {}, { bits: 0 }, /of 0 bits, as config.json says/],
    ['awq', 'bits of AWQ', {}, { bits: 3 }, /AWQ with 3 bits, where 4/],
    ['awq', 'negative groups', {}, { group_size: -5 }, /groups of -5, as config.json says/],
    [
      'awq',
      'huge groups',
      {},
      { group_size: 1e9 },
      /2 groups of 16 input features, where config.json says groups of 1000000000/,
    ],
    ['awq', 'another kernel', {}, { version: 'gemv\u202e' }, /"gemv\\u202e", where gemm/],
    [
      'awq',
      'groups that do not divide',
      { 'x.scales': ones(3, 8), 'x.qzeros': words([3, 1]) },
      {},
      /3 groups, which do not divide 16/,
    ],
    ['gptq', 'bits as text', {}, { bits: '4' }, /of "4" bits/],
    ['gptq', 'bits as what throws', {}, { bits: { toString: 1, valueOf: 1 } }, /of an object of .* bits/],
    ['gptq', 'bits that do not fit', {}, { bits: 8 }, /hold no codes and zeros of 8 bits/],
    ['gptq', 'a last group that is shorter', {}, { group_size: 12 }, /2 groups of 16 .* says groups of 12/],
    ['gptq', 'groups as text', {}, { group_size: 'x'.repeat(1000) }, /groups of "x{77}\.\.\."/],
    ['gptq', 'whole rows', {}, { group_size: -1 }, /says groups of whole rows/],
    ['gptq', 'a group that there is not', { 'x.g_idx': words([16], 2) }, {}, /g_idx 2 at 0, where a group, 0 to 1/],
    ['gptq', 'a negative group', { 'x.g_idx': words([16], -1) }, {}, /g_idx -1 at 0/],
    ['gptq', 'an order of another length', { 'x.g_idx': words([15]) }, {}, /I32 \[15\] as g_idx/],
    [
      ...(['gptq', 'bits in planes'] as const),
      { 'x.qweight': words([3, 32]), 'x.qzeros': words([2, 3]), 'x.scales': ones(2, 32) },
      { bits: 3, group_size: 16, checkpoint_format: 'gptq_p' },
      /in planes of bits \(gptq_p\) with 3 bits, where 2, 4 or 8/,
    ],
    ['gptq', 'codes of another size', { 'x.qweight': words([0, 8]) }, {}, /./],
    ['torchao', 'zeros of another size', { 'x._weight_zero_point': bytes([8, 3]) }, {}, /_weight_zero_point/],
    ['torchao', 'scales of another size', { 'x._weight_scale': ones(8, 3) }, {}, /_weight_scale/],
    ['compressed-tensors', 'no bits', {}, weights({ num_bits: 0 }), /of 0 bits/],
    ['compressed-tensors', 'bits in a list', {}, weights({ num_bits: [4] }), /of \[4\] bits/],
    ['compressed-tensors', 'negative groups', {}, weights({ num_bits: 4, group_size: -5 }), /groups of -5/],
    ['compressed-tensors', 'groups of 16', {}, weights({ num_bits: 4, group_size: 4 }), /says groups of 4/],
  ])('%s with %s is refused', async (format, _, change, said, message) => {
    const error = await failure(() => openModel(folderOf(format, change, said)));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT', message: expect.stringMatching(message) });
  });

  test.each<readonly [Format, unknown]>([
    ['awq', null],
    ['gptq', []],
    ['gptq', 'gptq'],
    ['torchao', {}],
    ['compressed-tensors', { config_groups: [] }],
  ])('%s is known by its tensors, whatever %j says', async (format, said) => {
    const [source] = FORMATS[format];
    const model = await openModel(modelFolder([source], { config: JSON.stringify({ quantization_config: said }) }));
    expect(model.tensor('x.weight')).toHaveLength(8 * 16);
    await model.close();
  });

  test('codes of torchao that are none of its bits are refused', async () => {
    const model = await openModel(folderOf('torchao', { 'x._weight_qdata': bytes([8, 16], 100) }));
    expect(() => model.tensor('x.weight')).toThrow(/_weight_qdata" holds numbers that are no codes of 4 bits/);
    await model.close();
  });
});

test('each file of torchao says what all tensors of the model are, since loaders take the list of the last', async () => {
  const out = freshPath('out');
  const parts = [
    { 'l.a.weight': randomTensor([8, 32], 1) },
    { 'l.b.weight': randomTensor([8, 32], 2), norm: randomTensor([8], 3) },
  ];
  await quantizeModel(modelFolder(parts), out, { to: 'torchao', groupSize: 32 });
  const files = fs.readdirSync(out).filter((name) => name.endsWith('.safetensors'));
  expect(files).toHaveLength(2);
  for (const file of files) {
    const data = fs.readFileSync(join(out, file));
    const { __metadata__: said } = JSON.parse(data.subarray(8, 8 + Number(data.readBigUInt64LE(0))).toString());
    expect(JSON.parse(said.tensor_names).sort()).toEqual(['l.a.weight', 'l.b.weight', 'norm']);
    expect([said['l.a.weight'], said['l.b.weight']].join()).toMatch(/(IntxUnpackedToInt8Tensor.*){2}/);
  }
});

test.each<readonly [string, object]>([
  ['bits', { overrides: { '*.q_proj': { nbits: 8 } } }],
  ['groups', { overrides: { '*.k_proj': { groupSize: 32 } } }],
  ['one that stays', { exclude: '*.v_proj.weight' }],
])('parts of what vLLM and SGLang compute as one are refused with other %s', async (_, options) => {
  const names = ['q_proj', 'k_proj', 'v_proj'];
  const source = Object.fromEntries(names.map((name, i) => [`l.${name}.weight`, randomTensor([64, 128], i)]));
  for (const engine of ['vllm', 'sglang'] as const) {
    const out = freshPath('out');
    const error = await failure(() => quantizeModel(modelFolder([source]), out, { for: engine, ...options }));
    expect(error).toMatchObject({
      code: 'ERR_CHECKPOINT_CONTENT',
      message: expect.stringMatching(/q_proj, k_proj, v_proj as one layer/),
    });
    expect(fs.existsSync(out)).toBe(false);
  }
  await quantizeModel(modelFolder([source]), freshPath('out'), { for: 'transformers', ...options });
});

describe('AWQ in the order of gemv', () => {
  // As AutoAWQ 0.2.9 packs it (modules/linear/gemv.py): rows of codes in their order, zeros and scales in whole words of zeros, of which
  // groups of 32 take a multiple of four.
  const [OUTS, INS, GROUP, WORDS] = [3, 64, 32, 4];
  const codeOf = (out: number, feature: number) => (5 * out + 3 * feature) % 16;
  const zeroOf = (out: number, group: number) => (7 * out + 2 * group + 1) % 16;
  const packed = (width: number, of: (row: number, at: number) => number): SourceTensor => {
    const all = new Int32Array(OUTS * width);
    for (let i = 0; i < all.length * 8; i++)
      all[i >> 3]! |= of(Math.floor(i / (8 * width)), i % (8 * width)) << (4 * (i & 7));
    return { dtype: 'I32', shape: [OUTS, width], bytes: new Uint8Array(all.buffer) };
  };
  const scales = Float32Array.from({ length: OUTS * WORDS * 8 }, (_, i) =>
    i % (WORDS * 8) < INS / GROUP ? 2 ** (Math.floor(i / (WORDS * 8)) - (i % 2)) : 0,
  );
  const source: Source = {
    'x.qweight': packed(INS / 8, codeOf),
    'x.qzeros': packed(WORDS, (out, group) => (group < INS / GROUP ? zeroOf(out, group) : 0)),
    'x.scales': tensorOf(scales, [OUTS, WORDS * 8], 'float16'),
  };
  const said = { quant_method: 'awq', bits: 4, group_size: GROUP, version: 'gemv', zero_point: true };
  /** As many scales and zeros as groups of half a feature would have. */
  const halves = {
    'x.scales': tensorOf(new Float32Array(OUTS * INS * 2).fill(1), [OUTS, INS * 2], 'float16'),
    'x.qzeros': words([OUTS, (INS * 2) / 8]),
  };
  const folder = (config: object = said, change: Source = {}) =>
    modelFolder([{ ...source, ...change }], { config: JSON.stringify({ quantization_config: config }) });

  test('is read, and no engine is said to load it', async () => {
    const model = await openModel(folder());
    const weights = Float32Array.from({ length: OUTS * INS }, (_, i) => {
      const [out, feature] = [Math.floor(i / INS), i % INS];
      const group = Math.floor(feature / GROUP);
      return (codeOf(out, feature) - zeroOf(out, group)) * 2 ** (out - group);
    });
    expect(model.tensor('x.weight')).toEqual(weights);
    expect(dequantizeSync(await model.loadQuantized('x'))).toEqual(weights);
    expect(model.loading().loads).toEqual([]);
    await model.close();
  });

  test.each<readonly [string, object, Source, RegExp]>([
    ['without a size of groups', { ...said, group_size: undefined }, {}, /no groups of undefined input features of 64/],
    ['in groups that do not divide', { ...said, group_size: 48 }, {}, /no groups of 48 input features of 64/],
    [
      'in groups of a part of a feature',
      { ...said, group_size: 0.5 },
      halves,
      /no groups of 0\.5 input features of 64/,
    ],
    ['in more groups than there are scales', { ...said, group_size: 1 }, {}, /no groups of 1 input features of 64/],
    ['with other zeros', said, { 'x.qzeros': words([3, 2]) }, /as scales, where floating-point \[3, 16\]/],
    ['with other bits', { ...said, bits: 8 }, {}, /AWQ with 8 bits/],
  ])('%s it is refused', async (_, config, change, message) => {
    const error = await failure(() => openModel(folder(config, change)));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT', message: expect.stringMatching(message) });
  });
});

test.each(['compressed-tensors', 'awq', 'gptq', 'torchao'] as const)(
  'importance: in %s, too, errors are smaller where they count',
  async (to) => {
    const name = 'm.layers.0.x';
    const source = { [`${name}.weight`]: randomTensor([64, 128], 9) };
    // Features 0, 4, 8 and so on of each group count a hundred times as much.
    const importance = Float32Array.from({ length: 128 }, (_, i) => (i % 4 === 0 ? 100 : 1));
    const weighted = async (given: object) => {
      const out = freshPath('out');
      await quantizeWeighed(modelFolder([source]), out, { to, nbits: 4, groupSize: 32, ...given });
      const model = await openModel(out);
      const weights = model.tensor(`${name}.weight`);
      await model.close();
      const original = numbersOf(source[`${name}.weight`]!);
      return weights.reduce((sum, weight, i) => sum + importance[i % 128]! * (weight - original[i]!) ** 2, 0);
    };
    const plain = await weighted({ importance: 'none' });
    const statistics = modelFile({ [`${name}.mean_square`]: tensorOf(importance, [1, 128]) });
    const own = await weighted({ importance: statistics });
    expect(own).toBeLessThan(0.9 * plain);
  },
);

test.each<readonly [Format, object]>([
  ['compressed-tensors', { zeroPoint: 'integer' }],
  ['awq', {}],
  ['gptq', {}],
])('rounding each gives what engines compute of float16 scales: %s', async (to, options) => {
  const name = 'm.layers.0.x.weight';
  const out = freshPath('out');
  const source = { [name]: randomTensor([64, 128], 3, 'float16') };
  await quantizeModel(modelFolder([source]), out, { to, nbits: 4, groupSize: 32, ...options });
  const model = await openModel(out);
  const once = model.tensor(name);
  const each = model.tensor(name, { rounding: 'each' });
  await model.close();
  // A difference of codes is a number of float16: only its product with the scale is rounded.
  expect(each).toEqual(once.map((weight) => floatOfHalf(halfOfFloat(weight))));
  expect(each).not.toEqual(once);
});

test('torchao: codes less the middle one, float zeros, exactly what is read', async () => {
  const source = llama();
  const input = modelFolder([source]);
  const out = freshPath('out');
  const report = await quantizeModel(input, out, { to: 'torchao', nbits: 3, groupSize: 32 });
  const tensors = readBack(join(out, 'model.safetensors'));
  const model = await openModel(out);
  for (const { name } of report.tensors) {
    const part = (key: string) => tensors.get(`${name.slice(0, -'.weight'.length)}._weight_${key}`)!;
    const codes = new Int8Array(part('qdata').bytes.slice().buffer);
    const [scale, zero] = [numbersOf(part('scale')), numbersOf(part('zero_point'))];
    const weights = Float32Array.from(codes, (code, i) => {
      const group = Math.floor(i / 32);
      return Math.fround(code - zero[group]!) * scale[group]!;
    });
    expect([Math.min(...codes) >= -4, Math.max(...codes) <= 3, part('zero_point').dtype]).toEqual([true, true, 'F32']);
    expect(model.tensor(name)).toEqual(weights);
  }
  await model.close();
  const header = (folder: string) => fs.readFileSync(join(folder, 'model.safetensors')).toString('latin1');
  expect(header(out)).toContain('IntxUnpackedToInt8Tensor');
  const back = freshPath('back');
  await dequantizeModel(out, back);
  expect(header(back)).not.toContain('IntxUnpackedToInt8Tensor');
  expect(header(back)).not.toContain('tensor_names');
});
