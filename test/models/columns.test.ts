import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { floatOfHalf } from '../../lib/backend/js/lanes.js';
import { dequantizeSync } from '../../lib/compute/quantize.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
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

// AWQ and GPTQ: layers that lie [in, out]. Read here by a few lines of the test's own, a code at a time.

type Options = QuantConfig & ModelOptions;
type Tensors = ReturnType<typeof readBack>;

function bitsAt(view: DataView, wordOf: (word: number) => number, at: number, bits: number): number {
  let value = 0;
  for (let i = 0; i < bits; i++) {
    const word = view.getUint32(4 * wordOf((at + i) >> 5), true);
    value |= ((word >>> ((at + i) & 31)) & 1) << i;
  }
  return value;
}

const viewOf = ({ bytes }: { readonly bytes: Uint8Array }) =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The weights of a layer of GPTQ, `offset` being what stored zeros are short of. */
function ofGptq(tensors: Tensors, name: string, bits: number, offset: number): Float32Array {
  const [packed, zeros, scales, index] = ['qweight', 'qzeros', 'scales', 'g_idx'].map(
    (key) => tensors.get(`${name}.${key}`)!,
  );
  const [height, outs] = packed!.shape as [number, number];
  const ins = (height * 32) / bits;
  const width = zeros!.shape[1]!;
  const scale = new Uint16Array(scales!.bytes.slice().buffer);
  const groupOf = new Int32Array(index!.bytes.slice().buffer);
  return Float32Array.from({ length: outs * ins }, (_, i) => {
    const [out, feature] = [Math.floor(i / ins), i % ins];
    const group = groupOf[feature]!;
    const code = bitsAt(viewOf(packed!), (word) => word * outs + out, feature * bits, bits);
    const zero = bitsAt(viewOf(zeros!), (word) => group * width + word, out * bits, bits) + offset;
    return (code - zero) * floatOfHalf(scale[group * outs + out]!);
  });
}

/** The weights of a layer of AWQ. */
function ofAwq(tensors: Tensors, name: string): Float32Array {
  const [packed, zeros, scales] = ['qweight', 'qzeros', 'scales'].map((key) => tensors.get(`${name}.${key}`)!);
  const [ins, words] = packed!.shape as [number, number];
  const outs = words * 8;
  const size = ins / zeros!.shape[0]!;
  const scale = new Uint16Array(scales!.bytes.slice().buffer);
  const nibble = (view: DataView, row: number, out: number) => {
    const place = [0, 2, 4, 6, 1, 3, 5, 7].indexOf(out % 8);
    return (view.getUint32(4 * (row * words + (out >> 3)), true) >>> (4 * place)) & 15;
  };
  return Float32Array.from({ length: outs * ins }, (_, i) => {
    const [out, feature] = [Math.floor(i / ins), i % ins];
    const group = Math.floor(feature / size);
    const zero = nibble(viewOf(zeros!), group, out);
    return (nibble(viewOf(packed!), feature, out) - zero) * floatOfHalf(scale[group * outs + out]!);
  });
}

const configOf = (folder: string) =>
  JSON.parse(fs.readFileSync(join(folder, 'config.json'), 'utf8').replace('Infinity', '1')).quantization_config;

/** A model whose shapes all formats take. */
const source = (): Source =>
  Object.fromEntries(
    Object.entries(llama()).map(([name, tensor]) => [
      name,
      tensor.shape.length === 2 ? randomTensor([96, 64], name.length) : tensor,
    ]),
  );

describe.each<readonly [string, Options, (tensors: Tensors, name: string) => Float32Array, object]>([
  ...([8, 4, 3, 2] as const).flatMap((nbits) => [
    [
      `GPTQ, ${nbits} bits, symmetric`,
      { to: 'gptq', nbits, groupSize: 32 },
      (tensors: Tensors, name: string) => ofGptq(tensors, name, nbits, 1),
      { bits: nbits, group_size: 32, sym: true, checkpoint_format: 'gptq', format: 'gptq', desc_act: false },
    ] as const,
    [
      `GPTQ, ${nbits} bits, integer zeros`,
      { to: 'gptq', nbits, groupSize: 32, zeroPoint: 'integer' },
      (tensors: Tensors, name: string) => ofGptq(tensors, name, nbits, 0),
      { bits: nbits, group_size: 32, sym: false, checkpoint_format: 'gptq_v2', format: 'gptq_v2' },
    ] as const,
  ]),
  ['AWQ', { to: 'awq', groupSize: 32 }, ofAwq, { quant_method: 'awq', bits: 4, zero_point: true, version: 'gemm' }],
  ['AWQ, whole rows', { to: 'awq', groupSize: null }, ofAwq, { group_size: -1 }],
])('%s', (_, options, weightsOf, said) => {
  test('has the bytes of the format, and is read as what they are', async () => {
    const input = modelFolder([source()]);
    const out = freshPath('out');
    const report = await quantizeModel(input, out, options);
    expect(report.tensors.length).toBe(6);
    expect(configOf(out)).toMatchObject(said);
    const tensors = readBack(join(out, 'model.safetensors'));
    const model = await openModel(out);
    const back = freshPath('back');
    await dequantizeModel(out, back);
    const floats = readBack(join(back, 'model.safetensors'));
    for (const { name, relativeError } of report.tensors) {
      const weights = weightsOf(tensors, name.slice(0, -'.weight'.length));
      const original = numbersOf(source()[name]!);
      const squares = original.reduce((sum, w) => sum + w * w, 0);
      const errors = original.reduce((sum, w, i) => sum + (w - weights[i]!) ** 2, 0);
      expect(Math.sqrt(errors / squares)).toBeCloseTo(relativeError, 5);
      expect(model.tensor(name)).toEqual(weights);
      expect(dequantizeSync(await model.loadQuantized(name))).toEqual(weights);
      expect(numbersOf(floats.get(name)!)).toEqual(weights);
    }
    await model.close();
  });
});

test('known answers of both formats', async () => {
  const words = (values: readonly number[], shape: readonly number[]): SourceTensor => ({
    ...{ dtype: 'I32', shape, bytes: new Uint8Array(Int32Array.from(values).buffer) },
  });
  const eight = [0, 1, 2, 3, 4, 5, 6, 7];
  // Codes 0 to 7 of eight outputs at one input; zeros 7 9 4 8 0 15 2 1.
  const awq = await openModel(
    modelFile({
      'x.qweight': words([0x75316420], [1, 1]),
      'x.qzeros': words([0x1f892047], [1, 1]),
      'x.scales': tensorOf(
        eight.map(() => 1),
        [1, 8],
        'float16',
      ),
    }),
  );
  const zeros = [7, 9, 4, 8, 0, 15, 2, 1];
  expect([...awq.tensor('x.weight')]).toEqual(eight.map((code, i) => code - zeros[i]!));
  await awq.close();
  // Codes 3 10 1 8 15 6 13 4 of eight inputs, of each output; zeros 7 9 4 8 3 15 2 1, as v1 and v2 store them.
  const codes = [3, 10, 1, 8, 15, 6, 13, 4];
  // GPTQModel takes the ones of v1 from words: of zeros 7 9 4 8 0 15 2 1 that of 0 borrows from 15 beside it.
  const borrowed = [7, 9, 4, 8, 0, 15, 2, 1];
  for (const [format, stored, zeros] of [
    ['gptq', 0x01e27386, [7, 9, 4, 8, 3, 15, 2, 1]],
    ['gptq_v2', 0x12f38497, [7, 9, 4, 8, 3, 15, 2, 1]],
    ['gptq_p', 0x12f38497, [7, 9, 4, 8, 3, 15, 2, 1]],
    ['gptq', 0x12f08497 - 0x11111111, borrowed],
  ] as const) {
    const config = JSON.stringify({
      quantization_config: { quant_method: 'gptq', bits: 4, checkpoint_format: format },
    });
    const folder = modelFolder(
      [
        {
          'x.qweight': words(
            eight.map(() => 0x4d6f81a3),
            [1, 8],
          ),
          'x.qzeros': words([stored], [1, 1]),
          'x.scales': tensorOf(
            eight.map(() => 1),
            [1, 8],
            'float16',
          ),
          'x.g_idx': words(
            eight.map(() => 0),
            [8],
          ),
        },
      ],
      { config },
    );
    const model = await openModel(folder);
    expect([...model.tensor('x.weight')]).toEqual(zeros.flatMap((zero) => codes.map((code) => code - zero)));
    await model.close();
  }
});

describe('what they cannot hold', () => {
  test.each<readonly [string, Options, RegExp]>([
    ['AWQ of 8 bits', { to: 'awq', nbits: 8 }, /nbits to be 4 for AWQ/],
    ['GPTQ of 6 bits', { to: 'gptq', nbits: 6 }, /nbits to be one of 8, 4, 3, 2 for GPTQ/],
    ['AWQ with float32 scales', { to: 'awq', metaDtype: 'float32' }, /metaDtype to be float16/],
    ['GPTQ with float zeros', { to: 'gptq', zeroPoint: 'float' }, /zeroPoint to be one of symmetric, integer/],
  ])('%s: an error before anything is read', async (_, options, message) => {
    const error = await failure(() => quantizeModel('/nowhere', freshPath(), options));
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) });
  });

  test('experts are refused, odd shapes stay, and say why; a layer that stays in one block only is refused for GPTQ', async () => {
    const model: Source = {
      'model.layers.0.mlp.experts.0.up_proj.weight': randomTensor([64, 64], 1),
      'model.layers.0.mlp.odd.weight': randomTensor([60, 64], 2),
      'model.layers.0.mlp.up_proj.weight': randomTensor([64, 64], 3),
      'model.layers.1.mlp.up_proj.weight': randomTensor([64, 64], 4),
    };
    for (const to of ['awq', 'gptq'] as const) {
      const out = freshPath('out');
      const input = modelFolder([model], { config: '{}' });
      expect(await failure(() => quantizeModel(input, out, { to }))).toMatchObject({
        code: 'ERR_CHECKPOINT_CONTENT',
        message: expect.stringMatching(
          /experts\.0\.up_proj\.weight": transformers fills experts .* --exclude "\*\.experts\.\*"/,
        ),
      });
      expect(fs.existsSync(out)).toBe(false);
      const { dense, tensors } = await quantizeModel(input, out, { to, exclude: '*.experts.*' });
      expect(tensors.length).toBe(2);
      expect(dense.map(({ reason }) => reason).sort()).toEqual([
        expect.stringMatching(/60 x 64.*multiple of 8|60 x 64, with rows/),
        expect.stringMatching(/exclude/),
      ]);
      if (to === 'awq') expect(configOf(out).modules_to_not_convert).toContain('model.layers.0.mlp.odd');
      else expect(configOf(out).modules_in_block_to_quantize).toEqual([['mlp.up_proj']]);
    }
    const split = { to: 'gptq', exclude: ['*.experts.*', 'model.layers.1.mlp.up_proj.weight'] } as const;
    const error = await failure(() => quantizeModel(modelFolder([model], { config: '{}' }), freshPath(), split));
    expect(error).toMatchObject({
      code: 'ERR_CHECKPOINT_CONTENT',
      message: expect.stringMatching(/as it is in other blocks/),
    });
  });
});
