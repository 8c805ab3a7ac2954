import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { fp8Numbers } from '../../lib/containers/safetensors/fp8.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  failure,
  freshPath,
  modelFolder,
  numbersOf,
  randomTensor,
  readBack,
  type Source,
  type SourceTensor,
  tensorOf,
} from '../support/checkpoints.js';

// Models that exist in FP8 only: read as the numbers that they are, and quantized as any model of floats.

/** Bytes that are all numbers: no NaN. */
const fp8 = (shape: readonly [number, number], seed = 1, dtype = 'F8_E4M3'): SourceTensor => {
  const bytes = Uint8Array.from({ length: shape[0] * shape[1] }, (_, i) => {
    const byte = Math.imul(i + seed, 2654435761) >>> 24;
    return (byte & 127) >= 120 ? byte & 135 : byte;
  });
  return { dtype, shape, bytes };
};

const configOf = (said: object) =>
  JSON.stringify({ architectures: ['LlamaForCausalLM'], model_type: 'llama', quantization_config: said });

const DEEPSEEK = { quant_method: 'fp8', fmt: 'e4m3', weight_block_size: [128, 128], activation_scheme: 'dynamic' };

/** What a weight is, number by number. */
function expected(
  { bytes, shape, dtype }: SourceTensor,
  scale: SourceTensor,
  high: number,
  wide: number,
): Float32Array {
  const numbers = fp8Numbers(dtype);
  const scales = numbersOf(scale);
  const cols = shape[1]!;
  const width = Math.ceil(cols / wide);
  return Float32Array.from(bytes, (byte, i) => {
    const [row, col] = [Math.floor(i / cols), i % cols];
    return Math.fround(numbers[byte]! * scales[Math.floor(row / high) * width + Math.floor(col / wide)]!);
  });
}

test('bytes are the numbers of the types: the largest, the least, what is none', () => {
  const [e4m3, e5m2] = [fp8Numbers('F8_E4M3'), fp8Numbers('F8_E5M2')];
  expect([0, 1, 8, 0x38, 0x7e, 0xfe].map((byte) => e4m3[byte])).toEqual([0, 2 ** -9, 2 ** -6, 1, 448, -448]);
  expect([0, 1, 4, 0x3c, 0x7b, 0xfc].map((byte) => e5m2[byte])).toEqual([0, 2 ** -16, 2 ** -14, 1, 57344, -Infinity]);
  expect([e4m3[0x7f], e4m3[0xff], e5m2[0x7d]]).toEqual([NaN, NaN, NaN]);
});

describe.each<readonly [string, readonly [number, number], string, SourceTensor, readonly [number, number], object]>([
  ['blocks', [200, 300], 'weight_scale_inv', randomTensor([2, 3], 5), [128, 128], DEEPSEEK],
  ['blocks, bfloat16', [256, 128], 'weight_scale_inv', randomTensor([2, 1], 5, 'bfloat16'), [128, 128], DEEPSEEK],
  [
    'other blocks',
    [64, 64],
    'weight_scale_inv',
    randomTensor([2, 4], 5),
    [32, 16],
    { ...DEEPSEEK, weight_block_size: [32, 16] },
  ],
  [
    'rows',
    [64, 96],
    'weight_scale',
    randomTensor([64, 1], 5, 'float16'),
    [1, 96],
    { quant_method: 'compressed-tensors' },
  ],
  ['a matrix', [64, 96], 'weight_scale', tensorOf([0.25], []), [64, 96], { quant_method: 'modelopt' }],
])('FP8 with scales of %s', (_, shape, key, scale, [high, wide], said) => {
  const name = 'model.layers.0.mlp.up_proj';
  const weight = fp8(shape);
  const source: Source = {
    'model.norm.weight': randomTensor([64], 1),
    [`${name}.weight`]: weight,
    [`${name}.${key}`]: scale,
    [`${name}.input_scale`]: tensorOf([1], []),
  };
  const weights = expected(weight, scale, high, wide);

  test('is read as the numbers that it is', async () => {
    const model = await openModel(modelFolder([source], { config: configOf(said) }));
    expect(model.tensors.map((tensor) => tensor.name).sort()).toEqual([`${name}.weight`, 'model.norm.weight']);
    expect(model.tensor(`${name}.weight`)).toEqual(weights);
    expect(await model.load(`${name}.weight`)).toEqual(weights);
    expect(model.loading().origin).toMatch(/^1 weight of the model was FP8/);
    expect(model.obstacle()).toBeUndefined();
    await model.close();
  });

  test.each(['hqq', 'compressed-tensors'] as const)('is quantized to %s as the same model of floats is', async (to) => {
    const floats: Source = {
      'model.norm.weight': source['model.norm.weight']!,
      [`${name}.weight`]: tensorOf(weights, shape),
    };
    const groupSize = to === 'hqq' ? 8 : null;
    const [one, other] = [freshPath('one'), freshPath('other')];
    const report = await quantizeModel(modelFolder([source], { config: configOf(said) }), one, { to, groupSize });
    const plain = await quantizeModel(
      modelFolder([floats], { config: configOf(said).replace(/,"quantization_config.*/, '}') }),
      other,
      { to, groupSize },
    );
    expect(readBack(join(one, 'model.safetensors'))).toEqual(readBack(join(other, 'model.safetensors')));
    expect(report.totals.relativeError).toBe(plain.totals.relativeError);
    expect(report.notes.join()).toMatch(/1 weight of the model was FP8 \(F8_E4M3 with \w+ scales of/);
    expect(plain.notes.join()).not.toMatch(/FP8/);
    const back = freshPath('back');
    await dequantizeModel(one, back);
    expect([...readBack(join(back, 'model.safetensors')).keys()].sort()).toEqual(Object.keys(floats).sort());
  });
});

test('a layer that stays is written as the numbers that it is', async () => {
  const source: Source = {
    'a.x.weight': fp8([128, 64]),
    'a.x.weight_scale_inv': tensorOf([0.5], [1, 1]),
    'a.y.weight': randomTensor([64, 64], 1),
  };
  const out = freshPath('out');
  await quantizeModel(modelFolder([source], { config: configOf(DEEPSEEK) }), out, { exclude: 'a.x.weight' });
  const stays = readBack(join(out, 'model.safetensors')).get('a.x.weight')!;
  expect(stays.dtype).toBe('F32');
  expect(numbersOf(stays)).toEqual(expected(source['a.x.weight']!, source['a.x.weight_scale_inv']!, 128, 128));
});

test.each<readonly [string, Source, object]>([
  ['scales of another size', { 'a.x.weight_scale_inv': randomTensor([3, 1], 1) }, DEEPSEEK],
  ['blocks that are none', {}, { ...DEEPSEEK, weight_block_size: [0, 'x'] }],
  ['whole numbers beside it', { 'a.y.weight': { dtype: 'I8', shape: [8, 8], bytes: new Uint8Array(64) } }, DEEPSEEK],
  ['a tool that is not known', {}, { ...DEEPSEEK, quant_method: 'other' }],
])('FP8 with %s is refused', async (_, change, said) => {
  const source: Source = { 'a.x.weight': fp8([256, 64]), 'a.x.weight_scale_inv': randomTensor([2, 1], 1), ...change };
  const error = await failure(() => quantizeModel(modelFolder([source], { config: configOf(said) }), freshPath('out')));
  expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(/quantized already/) });
});
