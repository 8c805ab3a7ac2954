import { describe, expect, it, test } from 'vitest';
import { compareModels } from '../../lib/models/compare.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  failure,
  freshPath,
  modelFile,
  numbersOf,
  randomTensor,
  readBack,
  type Source,
  type SourceTensor,
  tensorOf,
} from '../support/checkpoints.js';

/** Numbers that float32 does not hold, as float64; and rounded. */
function wide(count: number, shape: readonly number[]): { readonly f64: SourceTensor; readonly f32: SourceTensor } {
  const values = Float64Array.from({ length: count }, (_, i) => Math.sin(i * 1.7) * 0.1 + 1e-10 * i);
  return {
    f64: { dtype: 'F64', shape, bytes: new Uint8Array(values.buffer) },
    f32: tensorOf(Float32Array.from(values), shape),
  };
}

describe('float64', () => {
  const weight = wide(96 * 64, [96, 64]);
  const turned = wide(192 * 64, [64, 192]); // [in, out], as its bias shows
  const [bias, long, table] = [wide(96, [96]), wide(192, [192]), wide(5000, [50, 100])];
  const source = (kind: 'f64' | 'f32'): Source => ({
    'a.weight': weight[kind],
    'a.bias': bias[kind],
    'b.weight': turned[kind],
    'b.bias': long[kind],
    'embed.weight': table.f64,
    scalar: wide(1, []).f64,
  });

  it.each([{}, { axis: 0, groupSize: 8 }, { metaDtype: 'float32' }, { nbits: 3 }] as const)(
    'is rounded once to float32 where it is quantized, and else copied (%j)',
    async (options) => {
      const [out, rounded] = [freshPath('out.safetensors'), freshPath('rounded.safetensors')];
      const input = modelFile(source('f64'));
      const report = await quantizeModel(input, out, options);
      expect(report.tensors).toHaveLength(2);
      await quantizeModel(modelFile(source('f32')), rounded, options);
      const [got, want] = [readBack(out), readBack(rounded)];
      expect([...got.keys()]).toEqual([...want.keys()]);
      for (const [name, { dtype, bytes }] of want) {
        expect(got.get(name)!.dtype).toBe(dtype);
        expect(Buffer.compare(got.get(name)!.bytes, bytes)).toBe(0);
      }
      const compared = await compareModels(input, out);
      expect(compared.totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
      expect(compared.dense).toEqual({ equal: 2, rounded: { [report.tensors[0]!.metaDtype!]: 2 }, different: [] }); // rounded: the biases
    },
  );

  it('is read as float32', async () => {
    const model = await openModel(modelFile(source('f64')));
    const want = numbersOf(table.f32);
    expect(model.tensor('embed')).toEqual(want);
    expect(await model.load('embed.weight')).toEqual(want);
    await model.close();
  });

  it('is refused beyond float32', async () => {
    const values = new Float64Array(64 * 64).fill(0.5);
    values[70] = 1e300;
    const huge: SourceTensor = { dtype: 'F64', shape: [64, 64], bytes: new Uint8Array(values.buffer) };
    const error = await failure(() => quantizeModel(modelFile({ 'a.weight': huge }), freshPath('out.safetensors')));
    expect(error.code).toBe('ERR_NON_FINITE_WEIGHT');
    expect(error.message).toMatch(/Infinity at row 1, column 6\. \(Numbers beyond float32 count as infinite\.\)/);
    const bias: SourceTensor = { dtype: 'F64', shape: [64], bytes: new Uint8Array(values.slice(64, 128).buffer) };
    const model = modelFile({ 'a.weight': randomTensor([64, 64], 1), 'a.bias': bias });
    const other = await failure(() => quantizeModel(model, freshPath('out.safetensors')));
    expect(other.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(other.message).toMatch(
      /numbers of "a\.bias" in \S+ to fit into float32, .* but 1 of them would be infinite\./,
    );
  });
});

it('says FP8 of what stays for it', async () => {
  const bytes = (count: number) => new Uint8Array(count);
  const fp8 = (dtype: string): SourceTensor => ({ dtype, shape: [64, 64], bytes: bytes(64 * 64) });
  const report = await quantizeModel(
    modelFile({
      'a.weight': fp8('F8_E4M3'),
      'a.activation_scale': randomTensor([2, 2], 1),
      'b.weight': fp8('F8_E5M2'),
      'b.bias': randomTensor([64], 1),
      'c.weight': randomTensor([64, 64], 1),
    }),
    freshPath('out.safetensors'),
    { dryRun: true },
  );
  expect(report.tensors.map(({ name }) => name)).toEqual(['c.weight']);
  expect(Object.fromEntries(report.dense.map(({ name, reason }) => [name, reason]))).toEqual({
    'a.weight': 'stored as FP8 (F8_E4M3)',
    'a.activation_scale': 'scale of an FP8 weight',
    'b.weight': 'stored as FP8 (F8_E5M2)',
    'b.bias': 'not a matrix',
  });
});

test('comparing reports every tensor that it reads, to the last', async () => {
  const ints = (type: string, bytes: Uint8Array): SourceTensor => ({ dtype: type, shape: [bytes.length / 4], bytes });
  const common = { 'a.weight': randomTensor([64, 64], 1), 'none.weight': tensorOf([], [0, 64]) };
  const [a, b] = [
    modelFile({ ...common, steps: ints('I32', new Uint8Array(16)), same: ints('I32', new Uint8Array(8)) }),
    modelFile({ ...common, steps: ints('U32', new Uint8Array(16)), same: ints('I32', new Uint8Array(8)) }),
  ];
  const seen: string[] = [];
  const report = await compareModels(a, b, {
    onProgress: ({ tensorsDone, tensorsTotal }) => seen.push(`${tensorsDone} of ${tensorsTotal}`),
  });
  expect(seen).toEqual(['1 of 2', '2 of 2']);
  expect(report.dense).toEqual({ equal: 3, rounded: {}, different: ['steps'] });
});
