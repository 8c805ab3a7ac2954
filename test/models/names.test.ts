import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { bytesOf } from '../../lib/compute/floats.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { failure, freshPath, llama, modelFile, randomTensor, readBack, type Source } from '../support/checkpoints.js';

// Matrices that are not called as linear layers are.

const matrix = (seed: number) => randomTensor([32, 64], seed);
const oddly: Source = {
  'encoder.kernel': matrix(1),
  'encoder.kernel.bias': randomTensor([5], 2), // not a bias of the layer that `encoder.kernel` becomes
  'scope/dense:0': matrix(3),
  'rnn[0].weight_ih': matrix(4),
  ids: { dtype: 'I64', shape: [2, 2], bytes: new Uint8Array(32) },
  table: randomTensor([3, 4, 5], 6),
};

/** Quantizes a file, holds all that reads it against the original, and gives the report. */
async function roundTrip(input: string, options: Parameters<typeof quantizeModel>[2]) {
  const [out, dense] = [freshPath('out.safetensors'), freshPath('dense.safetensors')];
  const report = await quantizeModel(input, out, options);
  const names = report.tensors.map(({ name }) => name);
  await dequantizeModel(out, dense);
  const [before, after] = [readBack(input), readBack(dense)];
  expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
  for (const [name, { shape, bytes }] of before) {
    expect(after.get(name)!.shape).toEqual(shape);
    const changes = names.includes(name) || names.includes(name.replace(/\.bias$/, '.weight'));
    if (!changes) expect(Buffer.compare(after.get(name)!.bytes, bytes)).toBe(0);
  }
  const compared = await compareModels(input, out);
  expect(compared.tensors.map(({ name }) => name).sort()).toEqual([...names].sort());
  expect(compared.dense.different).toEqual([]);
  const [quantized, plain] = [await openModel(out), await openModel(dense)];
  expect([...quantized.names].sort()).toEqual([...before.keys()].sort());
  for (const name of names) {
    expect(Buffer.compare(bytesOf(quantized.tensor(name)), bytesOf(plain.tensor(name)))).toBe(0);
    expect(quantized.shape(name)).toEqual(before.get(name)!.shape);
    expect(quantized.linear(name).outFeatures).toBe(before.get(name)!.shape[0]);
  }
  await Promise.all([quantized.close(), plain.close()]);
  return { report, names, out };
}

describe('a model without a matrix that is called <module>.weight', () => {
  it('is quantized by patterns, and keeps its names', async () => {
    const { names, report, out } = await roundTrip(modelFile(oddly), { include: '*' });
    expect(names).toEqual(['encoder.kernel', 'scope/dense:0', 'rnn[0].weight_ih']);
    expect(Object.fromEntries(report.dense.map(({ name, reason }) => [name, reason]))).toEqual({
      'encoder.kernel.bias': 'not a matrix',
      ids: 'stored as I64',
      table: 'not a matrix',
    });
    expect(report.notes.join()).toMatch(/"encoder\.kernel".*Python \(transformers, hqq, vLLM\).*will not load/);
    const model = await openModel(out);
    expect(model.bias('encoder.kernel')).toBeUndefined();
    await model.close();
    expect((await roundTrip(modelFile(oddly), { include: ['rnn[0].weight_ih', '*dense*'] })).names).toHaveLength(2);
  });

  it('is left alone without them, with a word about the way', async () => {
    const error = await failure(() => quantizeModel(modelFile(oddly), freshPath('out.safetensors')));
    expect(error).toMatchObject({
      code: 'ERR_CHECKPOINT_CONTENT',
      message: expect.stringMatching(/3 not named <module>\.weight.*include by name: "encoder\.kernel", /),
    });
  });

  const models = process.env.HQQ_MODELS || fileURLToPath(new URL('../../../shared/models', import.meta.url));
  const nets = [
    ['ppocrv4-rec', 'linear_*', 9],
    ['silero-vad-v5', '*.rnn.*', 4],
    ['magika-v3_3', '*Const*', 2],
  ] as const;
  for (const [net, include, count] of nets) {
    const path = join(models, 'nets', `${net}.safetensors`);
    it.skipIf(!existsSync(path))(`${net} by ${include}`, async () => {
      expect((await roundTrip(path, { include })).names).toHaveLength(count);
    });
  }
});

describe('a matrix that is not taken for a linear layer', () => {
  const source: Source = {
    ...llama(),
    'tower.proj_out': matrix(1),
    'score.norm_proj.weight': matrix(2),
    'gate.weight': matrix(3),
    'gate.correction': randomTensor([4], 4),
  };

  it.each([
    ['model.embed_tokens.weight', 'model.embed_tokens.weight'],
    ['model.embed_tokens', 'model.embed_tokens.weight'],
    ['tower.proj_out', 'tower.proj_out'],
    ['score.norm_proj', 'score.norm_proj.weight'],
    ['gate.weight', 'gate.weight'],
  ])('is quantized where %s is included', async (include, name) => {
    const { names, report } = await roundTrip(modelFile(source), { include: [include, '*.q_proj'] });
    expect([...names].sort()).toEqual(
      ['model.layers.0.self_attn.q_proj.weight', 'model.layers.1.self_attn.q_proj.weight', name].sort(),
    );
    expect(report.notes.join()).toContain(`"${name}" is quantized as you asked`);
  });

  it('stays where a mere pattern matches it', async () => {
    for (const include of ['*embed_tokens', 'tower.*', '*norm_proj*', '*gate.weight']) {
      const error = await failure(() => quantizeModel(modelFile(source), freshPath('out.safetensors'), { include }));
      expect(error.message).toMatch(/stays as it is: .*Include it by its very name to quantize it all the same\.$/);
    }
    const { report } = await roundTrip(modelFile(source), { include: '*' });
    expect(report.dense.map(({ name }) => name)).toContain('model.embed_tokens.weight');
  });

  it('stays where it is excluded, too, and takes overrides', async () => {
    const include = ['tower.proj_out', '*q_proj'];
    const options = { include: [...include, '*'], exclude: 'tower.*' };
    const excluded = await failure(() => quantizeModel(modelFile(source), freshPath('out.safetensors'), options));
    expect(excluded.message).toMatch(/"tower\.proj_out" stays as it is: excluded\.$/);
    const { report } = await roundTrip(modelFile(source), { include, overrides: { 'tower.*': { nbits: 8 } } });
    expect(report.tensors.find(({ name }) => name === 'tower.proj_out')?.config.nbits).toBe(8);
  });

  it('may not become tensors of names that there are', async () => {
    const twins = { table: matrix(1), 'table.weight': matrix(2) };
    const twice = await failure(() =>
      quantizeModel(modelFile(twins), freshPath('out.safetensors'), { include: ['table', 'table.weight'] }),
    );
    expect(twice.message).toMatch(/"table\.weight" to be quantized.*another layer becomes "table\.W_q"\. Exclude it/);
    const marked = { 'x.weight': matrix(1), 'x.bare': randomTensor([7], 2) };
    const taken = await failure(() =>
      quantizeModel(modelFile(marked), freshPath('out.safetensors'), { include: 'x.weight' }),
    );
    expect(taken.message).toMatch(/"x\.weight" to be quantized.*the model has "x\.bare" already\. Exclude it/);
  });
});

it('refuses a layer whose weight would be called as another tensor is', async () => {
  const out = freshPath('out.safetensors');
  await quantizeModel(modelFile({ table: matrix(1) }), out, { include: 'table' });
  const layer = Object.fromEntries(readBack(out)) as Source;
  const both = await failure(() => openModel(modelFile({ ...layer, table: matrix(2) })));
  expect(both).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT', message: expect.stringContaining('both a weight and') });
  const renamed = Object.entries(layer).map(([name, tensor]) => [name.replace('table.', 'table.weight.'), tensor]);
  const odd = await failure(() => openModel(modelFile(Object.fromEntries(renamed) as Source)));
  expect(odd).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT', message: expect.stringContaining('marked as bare') });
});
