import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { dequantizeSync, quantizeSync } from '../../lib/compute/quantize.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  beside,
  CONFIG,
  failure,
  freshPath,
  llama,
  modelFile,
  modelFolder,
  numbersOf,
  randomTensor,
  readBack,
  type SourceTensor,
  tensorOf,
} from '../support/checkpoints.js';
import { golden, goldenBytes, goldenTensors } from '../support/golden.js';

function goldenFile(): string {
  const path = freshPath('hf_model.safetensors');
  fs.writeFileSync(path, goldenBytes('hf_model.safetensors'));
  return path;
}

describe('a checkpoint that Python wrote', () => {
  const expected = goldenTensors('hf_model_expected.safetensors');
  for (const { layer, nbits, axis, bias, compute_dtype } of golden.serialization.layers) {
    it(`${layer}: ${nbits} bits, axis ${axis}, ${compute_dtype}`, async () => {
      const model = await openModel(goldenFile());
      const want = numbersOf(expected.get(`${layer}.W_r`)!);
      expect(model.tensor(layer, { rounding: 'each' })).toEqual(want);
      expect(await model.load(`${layer}.weight`, { rounding: 'each', threads: 1 })).toEqual(want);
      expect(dequantizeSync(model.quantized(layer))).toEqual(model.tensor(layer));
      const info = model.tensors.find(({ name }) => name === `${layer}.weight`)!;
      expect(info).toMatchObject({ shape: [64, 128], dtype: undefined, quantized: { nbits, axis, bias } });
      expect(model.bias(layer)?.length).toBe(bias ? 64 : undefined);
      expect(model.quantized(layer).stats.meanAbsError).toBeNaN();
      await model.close();
    });
  }

  it('is read without blocking as it is with', async () => {
    const model = await openModel(goldenFile());
    for (const { layer, bias } of golden.serialization.layers) {
      const q = model.quantized(layer);
      expect(await model.loadQuantized(`${layer}.weight`, { threads: 1 })).toEqual(q);
      expect(await model.loadBias(layer)).toEqual(model.bias(layer));
      const x = Float32Array.from({ length: 2 * q.shape[1] }, (_, i) => Math.sin(i));
      for (const activations of ['float32', 'int8'] as const) {
        const [blocking, loaded] = [
          model.linear(layer, { activations }),
          await model.loadLinear(layer, { activations, threads: 1 }),
        ];
        expect(loaded.forwardSync(x)).toEqual(blocking.forwardSync(x));
        expect(loaded.bias?.length).toBe(bias ? q.shape[0] : undefined);
      }
    }
    const [first] = golden.serialization.layers;
    const signal = AbortSignal.abort('enough');
    await expect(model.loadQuantized(first!.layer, { signal })).rejects.toBe('enough');
    await expect(model.loadLinear(first!.layer, { signal })).rejects.toBe('enough');
    await expect(model.loadLinear(first!.layer, { activation: 'int8' } as never)).rejects.toThrow('Did you mean');
    await expect(model.loadLinear('nothing')).rejects.toThrow('Expected the name of a tensor of');
    await expect(model.loadQuantized(first!.layer, 2 as never)).rejects.toThrow('run options to be an object');
    await model.close();
    await expect(model.loadLinear(first!.layer)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('gives layers with its own biases, and takes no other', async () => {
    const file = goldenFile();
    const model = await openModel(file);
    const read = vi.spyOn(model, 'loadQuantized');
    for (const { layer, bias } of golden.serialization.layers) {
      const given = { bias: new Float32Array(64) } as object;
      const message = "Expected no bias, which is the model's own here, got Float32Array(64). For another one: Quant";
      await expect(model.loadLinear(layer, given)).rejects.toThrow(message);
      expect(() => model.linear(layer, given)).toThrow(message);
      expect((await model.loadLinear(layer, { bias: undefined } as object)).bias?.length).toBe(bias ? 64 : undefined);
    }
    read.mockClear();
    const { layer } = golden.serialization.layers[0]!;
    const wrong = { activations: 'int4' as never };
    await expect(model.loadLinear(layer, wrong)).rejects.toThrow('Expected activations to be one of float32, int8');
    expect(() => model.linear('nothing', wrong)).toThrow('Expected activations to be one of float32, int8');
    expect(read).not.toHaveBeenCalled();
    // Options are those of the call, whatever becomes of the object.
    const options: { activations: 'int8' | 'float32'; threads: number } = { activations: 'int8', threads: 1 };
    const pending = model.loadLinear(layer, options);
    Object.assign(options, { activations: 'float32', threads: -1 });
    expect((await pending).activations).toBe('int8');
    await model.close();
  });

  it('becomes a dense one with the same numbers', async () => {
    const out = freshPath('dense.safetensors');
    const file = goldenFile();
    const report = await dequantizeModel(file, out, { dtype: 'float16' });
    expect(report).toMatchObject({
      tensors: golden.serialization.layers.length,
      dtype: 'float16',
      bytesAfter: fs.statSync(out).size,
    });
    const [model, dense] = [await openModel(file), await openModel(out)];
    expect([...dense.names].sort()).toEqual([...model.names].sort());
    for (const name of model.names) expect(dense.tensor(name)).toEqual(model.tensor(name, { dtype: 'float16' }));
    await Promise.all([model.close(), dense.close()]);
  });
});

describe('openModel', () => {
  it('shows a quantized folder under the names of the original', async () => {
    const source = llama('bfloat16');
    const out = freshPath();
    await quantizeModel(modelFolder([source]), out, { nbits: 3 });
    const model = await openModel(out);
    expect([...model.names].sort()).toEqual(Object.keys(source).sort());
    expect([...model.shapes.keys()]).toEqual(model.names);
    for (const [name, shape] of model.shapes) expect(shape).toEqual(source[name]!.shape);
    expect(model.config).toMatchObject({ model_type: 'llama', rms_norm_eps: 1e-5 });
    expect(model.has('model.layers.0.mlp.down_proj') && model.has('lm_head.weight') && !model.has('lm_head.W_q')).toBe(
      true,
    );
    expect(model.shape('model.layers.0.mlp.down_proj')).toEqual([64, 128]);
    expect(model.tensor('lm_head')).toEqual(numbersOf(source['lm_head.weight']!));
    expect(model.bias('model.layers.0.self_attn.q_proj.weight')).toEqual(
      numbersOf(source['model.layers.0.self_attn.q_proj.bias']!),
    );
    expect(model.bias('model.norm.weight')).toBeUndefined();
    const q = model.quantized('model.layers.0.mlp.down_proj');
    const bits = new Uint16Array(Uint8Array.from(source['model.layers.0.mlp.down_proj.weight']!.bytes).buffer);
    expect(q.packed).toEqual(quantizeSync({ data: bits, dtype: 'bfloat16', shape: [64, 128] }, { nbits: 3 }).packed);
    await model.close();
    await model.close();
    expect(await failure(() => model.tensor('lm_head'))).toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('says what is wrong with a name or an option', async () => {
    const model = await openModel(
      modelFolder([{ ...llama(), ids: { dtype: 'I64', shape: [1], bytes: new Uint8Array(8) } }]),
    );
    expect((await failure(() => model.tensor('model.layers.0.mlp.down_porj.weight'))).message).toMatch(
      /Did you mean "model\.layers\.0\.mlp\.down_proj\.weight"/,
    );
    expect((await failure(() => model.tensor('ids'))).message).toMatch(/floating-point .*"ids", which is I64/);
    expect((await failure(() => model.quantized('lm_head'))).message).toMatch(
      /quantized layer, got "lm_head", which is F32/,
    );
    expect((await failure(() => model.tensor('lm_head', { rounding: 'none' as 'once' }))).code).toBe(
      'ERR_INVALID_OPTION',
    );
    expect((await failure(() => model.load('lm_head', { thread: 1 } as object))).message).toMatch(
      /Did you mean "threads"/,
    );
    expect((await failure(() => model.load('lm_head', { signal: AbortSignal.abort() }))).name).toBe('AbortError');
    expect(model.tensor('lm_head', { dtype: 'bfloat16' })).toEqual(
      numbersOf(tensorOf(model.tensor('lm_head'), [40, 64], 'bfloat16')),
    );
    await model.close();
    expect((await failure(() => openModel(''))).code).toBe('ERR_INVALID_OPTION');
  });
});

describe('rows of a quantized layer', () => {
  it.each([
    [4, 1],
    [3, 1],
    [3, 0],
    [8, 0],
  ] as const)('are those of the whole matrix, from whichever chunks: %d bits, axis %d', async (nbits, axis) => {
    const out = freshPath();
    const big = { ...llama('bfloat16'), 'big.weight': randomTensor([2305, 1024], 9, 'bfloat16') };
    await quantizeModel(modelFolder([big]), out, { nbits, axis });
    const model = await openModel(out);
    const whole = await model.load('big');
    const rows = [2304, 0, 7, 7, 1152, 1153, 2000, 1];
    const got = new Float32Array(rows.length * 1024);
    await model.loadRows('big', rows, got, { threads: 1 });
    rows.forEach((row, i) => {
      expect(got.subarray(i * 1024, (i + 1) * 1024)).toEqual(whole.subarray(row * 1024, (row + 1) * 1024));
    });
    const signal = AbortSignal.abort('enough');
    await expect(model.loadRows('big', rows, got, { signal })).rejects.toBe('enough');
    await model.close();
  });
});

describe('dequantizeModel', () => {
  for (const [nbits, axis] of [
    [4, 1],
    [3, 1],
    [3, 0],
    [1.58, 0],
    [8, 1],
  ] as const) {
    it(`gives a folder that loads where the original did: ${nbits} bits, axis ${axis}`, async () => {
      const source = { ...llama('bfloat16'), 'big.weight': randomTensor([2305, 1024], 9, 'bfloat16') };
      const quantized = freshPath();
      await quantizeModel(modelFolder([source], { files: { 'tokenizer.json': '{}' } }), quantized, { nbits, axis });
      const dense = freshPath();
      await dequantizeModel(quantized, dense, { dtype: 'bfloat16', threads: 2 });
      expect(fs.readFileSync(join(dense, 'config.json'), 'utf8')).toBe(CONFIG);
      expect(fs.readdirSync(dense).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
      const [model, tensors] = [await openModel(quantized), readBack(dense)];
      const shapes = (list: Iterable<[string, SourceTensor]>) =>
        Object.fromEntries([...list].map(([name, t]) => [name, [t.dtype, t.shape]]));
      expect(shapes(tensors)).toEqual(shapes(Object.entries(source)));
      for (const name of model.names) {
        const want = Buffer.from(model.tensor(name, { dtype: 'bfloat16' }).buffer);
        expect(want.equals(Buffer.from(numbersOf(tensors.get(name)!).buffer)), name).toBe(true);
      }
      await model.close();
    });
  }

  it('refuses what is not quantized, and options that do not exist', async () => {
    const out = freshPath();
    expect(await failure(() => dequantizeModel(modelFolder([llama()]), out))).toMatchObject({
      code: 'ERR_CHECKPOINT_CONTENT',
    });
    expect((await failure(() => dequantizeModel('x', out, { dtype: 'float64' as 'float32' }))).code).toBe(
      'ERR_INVALID_OPTION',
    );
    const typo = await failure(() => dequantizeModel('x', out, { dtpye: 'float32' } as object));
    expect(typo.message).toMatch(/Did you mean "dtype"/);
    expect(beside(out)).toEqual([]);
  });
});

describe('compareModels', () => {
  it('finds the errors that quantizing reported, and those of the dequantized model', async () => {
    const folder = modelFolder([{ ...llama('bfloat16'), 'big.weight': randomTensor([2305, 1024], 9, 'bfloat16') }]);
    const [quantized, dense] = [freshPath(), freshPath()];
    const report = await quantizeModel(folder, quantized);
    await dequantizeModel(quantized, dense);
    const seen: number[] = [];
    const compared = await compareModels(folder, quantized, {
      onProgress: ({ weightsDone, weightsTotal }) => seen.push(weightsDone / weightsTotal),
    });
    expect(seen.at(-1)).toBe(1);
    expect(compared.dense.different).toEqual([]);
    expect(compared.dense.equal + compared.tensors.length).toBe(16);
    expect(compared.totals.weights).toBe(report.totals.weights);
    expect(compared.totals.meanAbsError).toBeCloseTo(report.totals.meanAbsError, 8);
    expect(compared.totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    for (const row of compared.tensors) {
      const own = report.tensors.find(({ name }) => name === row.name)!;
      expect(row.storage).toBe('4-bit, group 64, axis 1');
      expect(row.relativeError).toBeCloseTo(own.relativeError, 6);
      expect(row.maxAbsError).toBeGreaterThan(row.meanAbsError);
    }
    const plain = await compareModels(folder, dense);
    expect(plain.tensors.map(({ name, meanAbsError }) => [name, meanAbsError])).toEqual(
      compared.tensors.map(({ name, meanAbsError }) => [name, meanAbsError]),
    );
    expect(plain.tensors[0]!.storage).toBe('float32');
    const same = await compareModels(folder, folder);
    expect(same).toMatchObject({
      tensors: [],
      dense: { equal: 16, different: [] },
      totals: { weights: 0, meanAbsError: 0, relativeError: 0 },
    });
  });

  it('names tensors that changed or that only one has', async () => {
    const source = llama();
    const changed = { ...source, 'model.norm.weight': randomTensor([64], 99), extra: randomTensor([2], 1) };
    const without = Object.fromEntries(Object.entries(changed).filter(([name]) => name !== 'lm_head.weight'));
    const report = await compareModels(modelFolder([source]), modelFolder([without]));
    expect(report.dense.different).toEqual(['model.norm.weight', 'lm_head.weight', 'extra']);
  });

  it('tells equal, equal but for rounding and overflow apart', async () => {
    const wide = (...values: number[]) => ({ dtype: 'F64', shape: [values.length], bytes: bytesOf(values) });
    const bytesOf = (values: number[]) => new Uint8Array(Float64Array.from(values).buffer);
    const first = {
      same: tensorOf([1 / 3, NaN], [2]),
      exact: tensorOf([0.5, -0, NaN, Infinity], [4]),
      exact64: wide(0.5, -0, NaN, Infinity),
      third: tensorOf([1, 1 / 3], [2]),
      brain: tensorOf([1, 1 / 3], [2]),
      wide: wide(1, 1 / 3),
      matrix: tensorOf([1, 1 / 3], [1, 2]),
      over: tensorOf([1, 70000], [2]),
      over32: wide(1, 1e300),
      overMatrix: tensorOf([1, 70000], [1, 2]),
    };
    const second = {
      same: first.same,
      exact: tensorOf([0.5, -0, NaN, Infinity], [4], 'float16'),
      exact64: tensorOf([0.5, -0, NaN, Infinity], [4], 'bfloat16'),
      third: tensorOf([1, 1 / 3], [2], 'float16'),
      brain: tensorOf([1, 1 / 3], [2], 'bfloat16'),
      wide: tensorOf([1, 1 / 3], [2]),
      matrix: tensorOf([1, 1 / 3], [1, 2], 'float16'),
      over: tensorOf([1, Infinity], [2], 'float16'),
      over32: tensorOf([1, Infinity], [2]),
      overMatrix: tensorOf([1, Infinity], [1, 2], 'float16'),
    };
    const { dense, tensors } = await compareModels(modelFile(first), modelFile(second));
    expect(dense).toEqual({
      equal: 3,
      rounded: { float16: 2, bfloat16: 1, float32: 1 },
      different: ['over', 'over32'],
    });
    expect(tensors.map(({ name }) => name)).toEqual(['overMatrix']);
  });

  it('refuses strangers and swapped arguments', async () => {
    const folder = modelFolder([llama()]);
    const quantized = freshPath();
    await quantizeModel(folder, quantized);
    const strange = modelFolder([{ 'other.weight': randomTensor([64, 64], 1) }]);
    const wider = modelFolder([{ 'lm_head.weight': randomTensor([41, 64], 1) }]);
    const messages: [string, string, RegExp][] = [
      [strange, quantized, /no tensor name in common: "other.weight" here/],
      [wider, quantized, /"lm_head.weight" is \[41, 64\] in .* and \[40, 64\] in/],
      [
        quantized,
        folder,
        /first model to be the original, but .* is quantized\. What was made .* cannot be compared with it: pass the original first/,
      ],
      [
        quantized,
        quantized,
        /Two quantized models cannot be compared with each other: pass the model that this was made from\./,
      ],
    ];
    for (const [a, b, message] of messages) {
      const error = await failure(() => compareModels(a, b));
      expect(error.message).toMatch(message);
      expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    }
    expect((await failure(() => compareModels(folder, quantized, { signal: AbortSignal.abort() }))).name).toBe(
      'AbortError',
    );
  });
});
