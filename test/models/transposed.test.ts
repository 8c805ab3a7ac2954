import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { openSource } from '../../lib/containers/list.js';
import { Scratch } from '../../lib/containers/scratch.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { DecodedSource } from '../../lib/models/quantize/decoded-source.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { schemeNamed } from '../../lib/schemes/list.js';
import {
  encode,
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

// Layers whose weights are stored [in, out], as the Conv1D of GPT-2 has them.

const GPT2 = '{\n  "model_type": "gpt2",\n  "n_embd": 64\n}\n';
const LLAMA = GPT2.replace('gpt2', 'llama');

/** [rows, cols] as [cols, rows]. */
function turned({ dtype, shape, bytes }: SourceTensor): SourceTensor {
  const [rows, cols] = shape as [number, number];
  const size = bytes.byteLength / (rows * cols);
  const out = new Uint8Array(bytes.byteLength);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      for (let b = 0; b < size; b++) out[(c * rows + r) * size + b] = bytes[(r * cols + c) * size + b]!;
    }
  }
  return { dtype, shape: [cols, rows], bytes: out };
}

/** A small GPT-2: two layers, and what is not to be quantized. */
function gpt2(dtype: 'float32' | 'float16' = 'float32'): Source {
  const tensors: Record<string, SourceTensor> = {
    'wte.weight': randomTensor([40, 64], 1, dtype),
    'wpe.weight': randomTensor([32, 64], 2, dtype),
    'ln_f.weight': randomTensor([64], 3, dtype),
    'score.weight': randomTensor([2, 64], 4, dtype),
    'lm_head.weight': randomTensor([40, 64], 5, dtype),
  };
  for (const layer of [0, 1]) {
    const add = (name: string, ins: number, outs: number) => {
      const seed = 10 + 10 * Object.keys(tensors).length;
      tensors[`h.${layer}.${name}.weight`] = randomTensor([ins, outs], seed, dtype);
      tensors[`h.${layer}.${name}.bias`] = randomTensor([outs], seed + 1, dtype);
    };
    tensors[`h.${layer}.attn.bias`] = randomTensor([1, 1, 8, 8], 6);
    tensors[`h.${layer}.attn.masked_bias`] = tensorOf([-1e4], []);
    add('attn.c_attn', 64, 192);
    add('attn.c_proj', 64, 64);
    add('mlp.c_fc', 64, 256);
    add('mlp.c_proj', 256, 64);
  }
  return tensors;
}

const isTurned = (name: string) => /\.c_\w+\.weight$/.test(name);

/** The same with linear layers, under names that nobody takes for Conv1D. */
function linear(source: Source): Source {
  const entries = Object.entries(source).map(([name, tensor]) => {
    return [name.replace(/c_(\w+)/, 'x_$1'), isTurned(name) ? turned(tensor) : tensor] as const;
  });
  return Object.fromEntries(entries);
}

const hex = ({ bytes }: { readonly bytes: Uint8Array }) => Buffer.from(bytes).toString('hex');

describe('a GPT-2', () => {
  const options: readonly (QuantConfig & ModelOptions)[] = [
    {},
    { nbits: 3, groupSize: 32 },
    { nbits: 2, axis: 0 },
    { nbits: 8, groupSize: 128 }, // across rows
    { nbits: 4, groupSize: null, metaDtype: 'float32' },
    { nbits: 1, groupSize: 256, axis: 0, solver: 'minmax' },
  ];
  it.each(options)('is quantized as its transpose, and given back as it was: %o', async (option) => {
    const source = gpt2('float16');
    const [input, other] = [modelFolder([source], { config: GPT2 }), modelFolder([linear(source)], { config: LLAMA })];
    const [out, back, otherOut, otherBack] = [freshPath(), freshPath(), freshPath(), freshPath()];
    const exclude = 'score';
    const report = await quantizeModel(input, out, option);
    const otherReport = await quantizeModel(other, otherOut, { ...option, exclude });
    expect(report.tensors.map(({ name }) => name).sort()).toEqual(Object.keys(source).filter(isTurned).sort());
    expect(report.tensors.find(({ name }) => name === 'h.0.mlp.c_proj.weight')!.shape).toEqual([64, 256]);
    const errors = ({ tensors }: typeof report) =>
      tensors.map(({ shape, relativeError }) => ({ shape, relativeError }));
    expect(errors(report)).toEqual(errors(otherReport));
    const [tensors, others] = [readBack(out), readBack(otherOut)];
    for (const name of Object.keys(source).filter(isTurned)) {
      const module = name.slice(0, -'.weight'.length);
      for (const key of ['W_q', 'scale', 'zero', 'shape', 'bias']) {
        const [ours, theirs] = [tensors.get(`${module}.${key}`)!, others.get(`${module.replace('c_', 'x_')}.${key}`)!];
        expect({ key, shape: ours.shape, hex: hex(ours) }).toEqual({ key, shape: theirs.shape, hex: hex(theirs) });
      }
      expect(tensors.get(`${module}.transposed`)).toMatchObject({ dtype: 'U8', shape: [] });
    }

    await dequantizeModel(out, back);
    await dequantizeModel(otherOut, otherBack);
    const [ours, theirs] = [readBack(back), readBack(otherBack)];
    expect([...ours.keys()].sort()).toEqual(Object.keys(source).sort());
    for (const name of Object.keys(source)) {
      const original = theirs.get(name.replace(/c_(\w+)/, 'x_$1'))! as SourceTensor;
      const expected = isTurned(name) ? turned(original) : original;
      expect({ name, shape: ours.get(name)!.shape, hex: hex(ours.get(name)!) }).toEqual({
        ...{ name, shape: expected.shape, hex: hex(expected) },
      });
    }

    const [comparison, otherComparison] = [await compareModels(input, out), await compareModels(other, otherOut)];
    expect(comparison.totals).toEqual(otherComparison.totals);
    expect((await compareModels(input, back)).totals.relativeError).toBeCloseTo(comparison.totals.relativeError, 12);
  });

  it('is read into the same memory, however many shards it has', async () => {
    const source = gpt2();
    const shards = [0, 1].flatMap((layer) =>
      ['attn.c_attn', 'attn.c_proj', 'mlp.c_fc', 'mlp.c_proj'].map((name) => {
        const weight = `h.${layer}.${name}.weight`;
        return { [weight]: source[weight]! };
      }),
    );
    const take = vi.spyOn(Scratch.prototype, 'take');
    await quantizeModel(modelFolder(shards, { config: GPT2 }), freshPath(), { importance: 'none' });
    const windows = take.mock.contexts.filter((_, i) => take.mock.calls[i]![0] === 'window');
    take.mockRestore();
    expect(windows).toHaveLength(shards.length);
    expect(new Set(windows).size).toBe(2); // one is read while the other is computed
  });

  it('says who will not load it, and leaves names that Python must not know', async () => {
    const out = freshPath();
    const report = await quantizeModel(modelFolder([gpt2()], { config: GPT2 }), out, { exclude: '*c_proj' });
    expect(report.notes.join()).toMatch(
      /4 weights stored \[in, out\] \("h\.0\.attn\.c_attn\.weight" and 3 more\) are quantized as .* take nn\.Linear only/,
    );
    const dense = Object.fromEntries(report.dense.map(({ name, reason }) => [name, reason]));
    expect(dense).toMatchObject({
      'h.1.mlp.c_proj.weight': 'excluded',
      'score.weight': 'may be a Conv1D of gpt2',
      'lm_head.weight': 'excluded by default: lm_head',
    });
    const config = JSON.parse(fs.readFileSync(join(out, 'config.json'), 'utf8')) as Record<string, never>;
    expect(config).toMatchObject({ quantization_config: { skip_modules: ['lm_head'] } });
  });

  it('opens as layers of [out, in]', async () => {
    const source = gpt2();
    const out = freshPath();
    await quantizeModel(modelFolder([source], { config: GPT2 }), out, { nbits: 8 });
    const model = await openModel(out);
    const name = 'h.0.mlp.c_fc';
    expect(model.shape(name)).toEqual([256, 64]);
    expect(model.quantized(name).shape).toEqual([256, 64]);
    const weights = numbersOf(turned(source[`${name}.weight`]!));
    const bias = numbersOf(source[`${name}.bias`]!);
    const [tensor, loaded] = [model.tensor(name), await model.load(name)];
    expect(tensor).toEqual(loaded);
    const x = numbersOf(randomTensor([64], 77));
    const y = model.linear(name).forwardSync(x);
    const far = tensor.map((weight, i) => Math.abs(weight - weights[i]!));
    expect(far.every((distance) => distance < 0.001)).toBe(true);
    for (let o = 0; o < 256; o++) {
      let sum = bias[o]!;
      for (let i = 0; i < 64; i++) sum += x[i]! * weights[o * 64 + i]!;
      expect(Math.abs(y[o]! - sum)).toBeLessThan(0.002);
    }
    await model.close();
  });

  it.each(['torchao', 'compressed-tensors'] as const)('of HQQ is given back as it was in %s', async (to) => {
    const [hqq, out, back] = [freshPath('hqq'), freshPath(to), freshPath('back')];
    const source = gpt2();
    const config = GPT2.replace('{', '{ "tie_word_embeddings": false,');
    await quantizeModel(modelFolder([source], { config }), hqq, { include: ['*.c_*', 'lm_head'] });
    const report = await quantizeModel(hqq, out, { to, include: 'lm_head' });
    expect(report.tensors.map(({ name }) => name)).toEqual(['lm_head.weight']);
    await dequantizeModel(hqq, back);
    const [ours, theirs] = [readBack(out), readBack(back)];
    for (const name of Object.keys(source).filter(isTurned)) {
      const [one, other] = [ours.get(name)!, theirs.get(name)!];
      expect({ name, shape: one.shape, hex: hex(one) }).toEqual({ name, shape: other.shape, hex: hex(other) });
    }
  });

  it('tells where in its tensor a weight is that is not finite', async () => {
    const values = numbersOf(randomTensor([64, 192], 3));
    values[5 * 192 + 150] = Infinity;
    const source = { 'h.0.c_attn.weight': tensorOf(values, [64, 192]) };
    const error = await failure(() => quantizeModel(modelFolder([source], { config: GPT2 }), freshPath()));
    expect(error.message).toMatch(/^h\.0\.c_attn\.weight of .* holds Infinity at row 5, column 150\./);
  });

  it('refuses a flag that is none', async () => {
    const out = freshPath();
    await quantizeModel(modelFolder([gpt2()], { config: GPT2 }), out);
    const file = join(out, 'model.safetensors');
    const tensors = Object.fromEntries(readBack(out)) as unknown as Record<string, SourceTensor>;
    const name = 'h.1.attn.c_attn.transposed';
    fs.writeFileSync(file, encode({ ...tensors, [name]: { ...tensors[name]!, bytes: Uint8Array.of(2) } }));
    expect((await failure(() => openModel(out))).message).toMatch(
      /quantized layer "h\.1\.attn\.c_attn" has transposed 2, where 0 or 1 is needed/,
    );
  });
});

describe('weights larger than a chunk', () => {
  it.each([
    [1, 64],
    [1, 96], // groups across rows
    [0, 64],
  ] as const)('are turned in parts: axis %i, group %i', async (axis, groupSize) => {
    const wide = randomTensor([1504, 1728], 5, 'bfloat16');
    const source = { 'a.c_fc.weight': wide, 'a.c_fc.bias': randomTensor([1728], 6) };
    const input = freshPath('in.safetensors');
    const other = freshPath('other.safetensors');
    fs.writeFileSync(input, encode(source));
    fs.writeFileSync(other, encode({ 'a.x.weight': turned(wide) }));
    const [out, back, otherOut] = [freshPath('out'), freshPath('back'), freshPath('otherOut')];
    const chunks: number[] = [];
    const onProgress = ({ weightsDone }: { readonly weightsDone: number }) => chunks.push(weightsDone);
    await quantizeModel(input, out, { axis, groupSize, solver: 'minmax', onProgress });
    await quantizeModel(other, otherOut, { axis, groupSize, solver: 'minmax' });
    expect(new Set(chunks).size).toBeGreaterThan(1);
    const [ours, theirs] = [readBack(out), readBack(otherOut)];
    for (const key of ['W_q', 'scale', 'zero']) {
      expect(Buffer.compare(ours.get(`a.c_fc.${key}`)!.bytes, theirs.get(`a.x.${key}`)!.bytes), key).toBe(0);
    }
    await dequantizeModel(out, back, { dtype: 'float16' });
    const model = await openModel(out);
    const rounded = await model.load('a.c_fc', { dtype: 'float16' });
    await model.close();
    const given = numbersOf(turned(readBack(back).get('a.c_fc.weight')! as SourceTensor));
    expect(Buffer.compare(Buffer.from(given.buffer), Buffer.from(rounded.buffer))).toBe(0);
    await expectPartsOf(out, 'a.c_fc.weight');
  });

  async function expectPartsOf(folder: string, name: string): Promise<void> {
    const back = freshPath('whole');
    await dequantizeModel(folder, back);
    const { bytes } = readBack(back).get(name)!;
    const source = await openSource(folder);
    const decoded = new DecodedSource(source, await schemeNamed('hqq').find(source));
    const entry = decoded.entries.get(name)!;
    const middle = 4 * 1000 * 1000 + 3; // within a column, and within a number
    const parts = [new Uint8Array(middle), new Uint8Array(bytes.byteLength - middle)] as const;
    await decoded.read(entry, 0, parts[0]);
    await decoded.read(entry, middle, parts[1]);
    await decoded.close();
    expect(Buffer.compare(Buffer.concat(parts), bytes)).toBe(0);
  }
});
