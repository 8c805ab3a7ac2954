import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { withValue } from '../../lib/containers/safetensors/config-text.js';
import { DTYPES } from '../../lib/matrix/dtype.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  encode,
  freshPath,
  llama,
  modelFolder,
  numbersOf,
  readBack,
  type Source,
  tensorOf,
} from '../support/checkpoints.js';

const CONFIG = `{
  "model_type": "llama",
  "rms_norm_eps": 1e-05,
  "torch_dtype": "float32",
  "text_config": {"theta": 1e4, "dtype": "float32", "list": [1, {"dtype": "float32"}], "limit": Infinity},
  "vision_config": { "torch_dtype": null },
  "tie_word_embeddings": false
}
`;
const values = Float64Array.of(1, 1 / 3, -2.5e-9, 70000, 1e300);
const source: Source = {
  ...llama(),
  'steps.table': { dtype: 'F64', shape: [5], bytes: new Uint8Array(values.buffer) },
  'steps.ids': { dtype: 'I64', shape: [2], bytes: new Uint8Array(16) },
  'steps.fp8': { dtype: 'F8_E4M3', shape: [4], bytes: Uint8Array.of(1, 2, 3, 4) },
  'steps.half': tensorOf([1 / 3, 2], [2], 'float16'),
  'steps.empty': { dtype: 'F32', shape: [0, 3], bytes: new Uint8Array(0) },
};

describe.each(['float32', 'float16', 'bfloat16'] as const)('dequantize to %s', (dtype) => {
  it('converts every floating-point tensor, and config.json says so', async () => {
    const [quantized, out, plain] = [freshPath('q'), freshPath('out'), freshPath('plain')];
    await quantizeModel(modelFolder([source], { config: CONFIG }), quantized, { nbits: 8 });
    const seen: string[] = [];
    const options = {
      dtype,
      onProgress: ({ tensorsDone, tensorsTotal }: { tensorsDone: number; tensorsTotal: number }) =>
        seen.push(`${tensorsDone}/${tensorsTotal}`),
    };
    const report = await dequantizeModel(quantized, out, options);
    const [last] = seen.slice(-1);
    expect(last?.split('/')[0]).toBe(last?.split('/')[1]);
    const [before, after] = [readBack(quantized), readBack(out)];
    const name = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' }[dtype];
    expect(Object.keys(source).sort()).toEqual([...after.keys()].sort());
    for (const [key, { dtype: type, bytes }] of after) {
      if (key === 'steps.ids' || key === 'steps.fp8') {
        expect(type).toBe(source[key]!.dtype);
        expect(bytes).toEqual(before.get(key)!.bytes);
      } else expect(type).toBe(name);
    }
    const rounded = (numbers: ArrayLike<number>) => tensorOf(Float32Array.from(numbers), [numbers.length], dtype).bytes;
    expect(after.get('steps.table')!.bytes).toEqual(rounded(values));
    expect(after.get('steps.half')!.bytes).toEqual(rounded(numbersOf(source['steps.half']!)));
    expect(after.get('model.norm.weight')!.bytes).toEqual(rounded(numbersOf(source['model.norm.weight']!)));
    const model = await openModel(quantized);
    const weight = 'model.layers.0.mlp.gate_proj.weight';
    expect(numbersOf(after.get(weight)!)).toEqual(model.tensor(weight, { dtype }));
    await model.close();
    const overflow = report.notes.filter((note) => note.includes('became infinite'));
    const what = dtype === 'float16' ? '2 numbers of 1 tensor are' : '1 number of 1 tensor is';
    expect(overflow).toEqual([`${what} beyond ${dtype} and became infinite: "steps.table".`]);

    const text = fs.readFileSync(join(out, 'config.json'), 'utf8');
    const want = CONFIG.replace('"torch_dtype": "float32"', `"torch_dtype": "${dtype}"`);
    expect(text).toBe(want.replace('"theta": 1e4, "dtype": "float32"', `"theta": 1e4, "dtype": "${dtype}"`));
    await dequantizeModel(quantized, plain);
    expect(fs.readFileSync(join(plain, 'config.json'), 'utf8')).toBe(CONFIG);
  });
});

it('without a type changes what was quantized, and nothing else', async () => {
  const [quantized, out] = [freshPath('q'), freshPath('out')];
  await quantizeModel(modelFolder([{ ...source, ...llama('bfloat16') }], { config: CONFIG }), quantized);
  await dequantizeModel(quantized, out);
  const [before, after] = [readBack(quantized), readBack(out)];
  for (const [name, { dtype, bytes }] of after) {
    const old = before.get(name);
    const own = old === undefined || (name.endsWith('.bias') && before.has(name.replace(/bias$/, 'W_q')));
    expect(dtype).toBe(own ? 'F32' : old.dtype);
    if (!own) expect(bytes).toEqual(old.bytes);
  }
  expect([...after.values()].filter(({ dtype }) => dtype === 'BF16').length).toBeGreaterThan(3);
});

it('puts a bias where its weight goes', async () => {
  const [quantized, out] = [freshPath('q'), freshPath('out')];
  await quantizeModel(modelFolder([llama()]), quantized);
  const tensors = Object.entries(Object.fromEntries(readBack(quantized)) as Source);
  const isBias = ([name]: readonly [string, unknown]) => name.endsWith('.bias');
  const shards = [tensors.filter((tensor) => !isBias(tensor)), tensors.filter(isBias)];
  const apart = modelFolder([...shards, [['alone', llama()['lm_head.weight']!] as const]].map(Object.fromEntries));
  for (const dtype of [undefined, 'float16'] as const) {
    await dequantizeModel(apart, out, { dtype, force: true });
    const { weight_map } = JSON.parse(fs.readFileSync(join(out, 'model.safetensors.index.json'), 'utf8'));
    for (const [name, file] of Object.entries(weight_map)) {
      expect(file).toBe(`model-0000${name === 'alone' ? 3 : 1}-of-00003.safetensors`);
    }
  }
});

it('converts a file of many tensors that are larger than a piece', async () => {
  const count = 2 * 1024 * 1024 + 12345;
  const numbers = Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  const file = freshPath('in.safetensors');
  const big = { 'a.weight': llama()['lm_head.weight']!, table: tensorOf(numbers, [count]) };
  fs.writeFileSync(file, encode(big));
  const [quantized, out] = [freshPath('q.safetensors'), freshPath('out.safetensors')];
  await quantizeModel(file, quantized);
  await dequantizeModel(quantized, out, { dtype: 'bfloat16' });
  const table = readBack(out).get('table')!;
  expect(table.bytes.byteLength).toBe(count * DTYPES.bfloat16.bytes);
  expect(Buffer.compare(table.bytes, tensorOf(numbers, [count], 'bfloat16').bytes)).toBe(0);
});

it('a value of config.json is replaced where it stands', () => {
  expect(withValue('{"a": {"x": "1", "y" :\t[2] , "z": 3}, "x": 1}', ['a', 'y'], 'new')).toBe(
    '{"a": {"x": "1", "y" :\t"new" , "z": 3}, "x": 1}',
  );
  expect(withValue('{"a": "}\\"", "b": 1e-05}', ['b'], 2)).toBe('{"a": "}\\"", "b": 2}');
  expect(withValue('{"a": 1}', ['c'], 2)).toBe('{"a": 1}');
});
