import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openSource } from '../../lib/containers/list.js';
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
} from '../support/checkpoints.js';

// Experts that exist in MXFP4 only (gpt-oss): read as the numbers that they are, and quantized as any model of floats.

const [EXPERTS, INS] = [2, 64];
const AT = 'model.layers.0.mlp.experts';
const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

const bytesOf = (count: number, seed: number, least = 0, most = 255) =>
  Uint8Array.from(
    { length: count },
    (_, i) => least + ((Math.imul(i + 7 * seed, 2654435761) >>> 20) % (most - least + 1)),
  );

function packed(outs: number, seed: number): readonly [blocks: SourceTensor, scales: SourceTensor] {
  const groups = INS / 32;
  const count = EXPERTS * outs * groups;
  return [
    { dtype: 'U8', shape: [EXPERTS, outs, groups, 16], bytes: bytesOf(count * 16, seed) },
    { dtype: 'U8', shape: [EXPERTS, outs, groups], bytes: bytesOf(count, seed + 1, 118, 124) },
  ];
}

/** `[experts, in, out]`, as transformers has it (convert_moe_packed_tensors). */
function numbers([blocks, scales]: readonly [SourceTensor, SourceTensor]): Float32Array {
  const [, outs] = blocks.shape as [number, number];
  const out = new Float32Array(EXPERTS * INS * outs);
  for (let e = 0; e < EXPERTS; e++) {
    for (let row = 0; row < outs; row++) {
      for (let col = 0; col < INS; col++) {
        const group = (e * outs + row) * (INS / 32) + Math.floor(col / 32);
        const byte = blocks.bytes[group * 16 + ((col % 32) >> 1)]!;
        const code = col % 2 === 0 ? byte & 15 : byte >> 4;
        const sign = code & 8 ? -1 : 1;
        out[(e * INS + col) * outs + row] = sign * E2M1[code & 7]! * 2 ** (scales.bytes[group]! - 127);
      }
    }
  }
  return out;
}

/** Exact: these numbers have two bits of fraction at most. */
const bfloat16 = (values: Float32Array, shape: readonly number[]): SourceTensor => {
  const words = new Uint32Array(values.buffer);
  const halves = Uint16Array.from(words, (word) => word >>> 16);
  return { dtype: 'BF16', shape, bytes: new Uint8Array(halves.buffer) };
};

const [GATE_UP, DOWN] = [packed(128, 1), packed(64, 5)];
const REST: Source = {
  'model.layers.0.self_attn.q_proj.weight': randomTensor([64, 64], 1, 'bfloat16'),
  [`${AT}.gate_up_proj_bias`]: randomTensor([EXPERTS, 128], 3, 'bfloat16'),
  [`${AT}.down_proj_bias`]: randomTensor([EXPERTS, 64], 4, 'bfloat16'),
};
const MXFP4: Source = {
  ...REST,
  ...{ [`${AT}.gate_up_proj_blocks`]: GATE_UP[0], [`${AT}.gate_up_proj_scales`]: GATE_UP[1] },
  ...{ [`${AT}.down_proj_blocks`]: DOWN[0], [`${AT}.down_proj_scales`]: DOWN[1] },
};
const FLOATS: Source = {
  ...REST,
  [`${AT}.gate_up_proj`]: bfloat16(numbers(GATE_UP), [EXPERTS, INS, 128]),
  [`${AT}.down_proj`]: bfloat16(numbers(DOWN), [EXPERTS, INS, 64]),
};
const CONFIG = { architectures: ['GptOssForCausalLM'], model_type: 'gpt_oss', hidden_size: 64 };
const plain = JSON.stringify(CONFIG);
const config = JSON.stringify({ ...CONFIG, quantization_config: { quant_method: 'mxfp4' } });

test('is read as the numbers that it is, whole and in any part', async () => {
  const path = modelFolder([MXFP4], { config });
  const model = await openModel(path);
  expect(model.tensors.map(({ name }) => name).sort()).toEqual(Object.keys(FLOATS).sort());
  for (const [name, tensor] of [['gate_up_proj', GATE_UP] as const, ['down_proj', DOWN] as const]) {
    expect(model.tensor(`${AT}.${name}`)).toEqual(numbers(tensor));
    expect(await model.load(`${AT}.${name}`)).toEqual(numbers(tensor));
  }
  expect(model.loading().origin).toMatch(/^2 stacks of experts were MXFP4: read as the bfloat16 numbers/);
  expect(model.obstacle()).toBeUndefined();
  await model.close();
  const source = await openSource(path);
  const entry = source.entries.get(`${AT}.gate_up_proj`)!;
  const all = FLOATS[`${AT}.gate_up_proj`]!.bytes;
  for (const [from, to] of [
    [0, 2],
    [190, 194],
    [8190, 16390],
    [16382, 16386],
    [16381, 16388],
    [7, 8],
    [32000, 32768],
  ] as const) {
    const into = new Uint8Array(to - from);
    await source.read(entry, from, into);
    expect(Buffer.from(into).equals(Buffer.from(all).subarray(from, to)), `${from}`).toBe(true);
  }
  await source.close();
});

describe.each(['hqq', 'compressed-tensors'] as const)('as %s', (to) => {
  test('is quantized as the same model of floats is', async () => {
    const [one, other] = [freshPath('one'), freshPath('other')];
    const report = await quantizeModel(modelFolder([MXFP4], { config }), one, { to });
    const wanted = await quantizeModel(modelFolder([FLOATS], { config: plain }), other, { to });
    const [got, made] = [one, other].map((folder) => readBack(join(folder, 'model.safetensors')));
    expect([...got!.keys()].sort()).toEqual([...made!.keys()].sort());
    for (const [name, { bytes }] of made!)
      expect(Buffer.from(got!.get(name)!.bytes).equals(Buffer.from(bytes)), name).toBe(true);
    expect(report.totals.relativeError).toBe(wanted.totals.relativeError);
    expect(report.notes.join()).toMatch(/2 stacks of experts were MXFP4/);
    expect(report.tensors).toHaveLength(to === 'hqq' ? 1 : 1 + 3 * EXPERTS);
  });
});

test.each<readonly [string, Source]>([
  ['blocks without scales', { [`${AT}.down_proj_scales`]: randomTensor([2, 64], 1) }],
  [
    'scales of another shape',
    { [`${AT}.down_proj_scales`]: { dtype: 'U8', shape: [2, 64, 1], bytes: new Uint8Array(128) } },
  ],
  [
    'blocks of another size',
    { [`${AT}.down_proj_blocks`]: { dtype: 'U8', shape: [2, 64, 4, 8], bytes: new Uint8Array(4096) } },
  ],
])('%s are refused', async (_, change) => {
  const path = modelFolder([{ ...MXFP4, ...change }], { config });
  expect(await failure(() => quantizeModel(path, freshPath()))).toMatchObject({
    code: 'ERR_CHECKPOINT_CONTENT',
    message: expect.stringMatching(/quantized already/),
  });
});

test('numbers are those that transformers makes of it', () => {
  expect([...numbersOf(FLOATS[`${AT}.down_proj`]!)]).toEqual([...numbers(DOWN)]);
});
