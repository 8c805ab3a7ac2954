import * as fs from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inspect } from '../../lib/cli/commands/inspect.js';
import { CONTAINERS, openSource } from '../../lib/containers/list.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { finishShards, planConversion, writeShard } from '../../lib/models/quantize/shards.js';
import { hqq } from '../../lib/schemes/hqq/scheme.js';
import { SCHEMES } from '../../lib/schemes/list.js';
import { encode, failure, freshPath, numbersOf, randomTensor, type Source } from '../support/checkpoints.js';
import { toyContainer, writeToy } from '../support/toys/container.js';
import { toyScheme } from '../support/toys/scheme.js';

// What a new container and a new scheme cost: a folder, and a row in a list.

const [containers, schemes] = [[...CONTAINERS], [...SCHEMES]];
beforeEach(() => {
  CONTAINERS.push(toyContainer);
  SCHEMES.push(toyScheme);
});
afterEach(() => {
  CONTAINERS.splice(0, Infinity, ...containers);
  SCHEMES.splice(0, Infinity, ...schemes);
});

const SOURCE: Source = {
  'a.weight': randomTensor([64, 128], 1, 'bfloat16'),
  'a.bias': randomTensor([64], 2),
  'b.weight': randomTensor([128, 96], 3),
  'c.table': randomTensor([10, 10], 4, 'float16'),
};
const LAYERS = { a: 'out-in', b: 'in-out' } as const;

async function toyModel(): Promise<string> {
  const path = freshPath('model.toy');
  await writeToy(path, SOURCE, LAYERS);
  return path;
}

/** Weights of a layer, `[out, in]`. */
function weightsOf(name: 'a' | 'b'): Float32Array {
  const tensor = SOURCE[`${name}.weight`]!;
  const values = numbersOf(tensor);
  if (name === 'a') return values;
  const [ins, outs] = tensor.shape as [number, number];
  return Float32Array.from({ length: ins * outs }, (_, k) => values[(k % ins) * outs + Math.floor(k / ins)]!);
}

/** Quantizes, compares, opens, multiplies and gives back a model that holds layer `a`, and perhaps `b`. */
async function goThrough(input: string, most: number): Promise<void> {
  const ending = input.slice(input.lastIndexOf('.'));
  const [out, back] = [freshPath(`out${ending}`), freshPath(`back${ending}`)];
  const report = await quantizeModel(input, out);
  const comparison = await compareModels(input, out);
  expect(comparison.totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
  expect(comparison.totals.relativeError).toBeLessThan(most);
  expect(comparison.dense.different).toEqual([]);

  const model = await openModel(out);
  const bytes = report.tensors.reduce((sum, tensor) => sum + tensor.bytesAfter, 0);
  const stored = model.tensors.filter(({ quantized }) => quantized);
  expect(stored.map(({ name }) => name)).toEqual(report.tensors.map(({ name }) => name));
  expect(stored.reduce((sum, tensor) => sum + tensor.bytes, 0)).toBeGreaterThanOrEqual(bytes);
  for (const { name, shape } of stored) {
    const module = name.slice(0, -'.weight'.length) as 'a' | 'b';
    const weights = weightsOf(module);
    const tensor = model.tensor(name);
    expect(tensor).toEqual(await model.load(module));
    const worst = tensor.reduce((far, value, i) => Math.max(far, Math.abs(value - weights[i]!)), 0);
    expect(worst).toBeLessThan(0.1 * most);
    const x = numbersOf(randomTensor([shape[1]!], 9));
    const layer = model.linear(module);
    expect([layer.outFeatures, layer.inFeatures]).toEqual(shape);
    expect(layer.forwardSync(x)).toHaveLength(shape[0]!);
  }
  expect(model.tensor('c.table')).toHaveLength(100);
  await model.close();

  const printed: string[] = [];
  const context = { signal: new AbortController().signal, print: (text: string) => printed.push(text) };
  expect(await inspect.parse([out, '--json'])(context)).toBe(0);
  expect(JSON.parse(printed.join(''))).toMatchObject({ totals: { quantizedTensors: stored.length } });

  await dequantizeModel(out, back, { dtype: 'float32' });
  const original = await openModel(input);
  const given = await openModel(back);
  expect([...given.shapes].sort()).toEqual([...original.shapes].sort());
  await Promise.all([original.close(), given.close()]);
  expect((await compareModels(input, back)).totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
  const again = await failure(() => quantizeModel(out, freshPath()));
  expect(again.message).toMatch(/is quantized already: \d layers hold /);
}

describe('a container that is a folder and a row', () => {
  it('holds layers of a scheme that names it', async () => goThrough(await toyModel(), 0.02));

  it('holds HQQ layers, once the scheme names it', async () => {
    SCHEMES.unshift({ ...hqq, containers: [...hqq.containers, 'toy'] } as (typeof SCHEMES)[number]);
    await goThrough(await toyModel(), 0.2);
  });

  it('has what surrounds its tensors follow their change', async () => {
    const input = await toyModel();
    const [out, back] = [freshPath('out.toy'), freshPath('back.toy')];
    const report = await quantizeModel(input, out);
    expect(report.notes).toEqual(['Only tests read toys.', 'This is a toy.']);
    const quantized = await openSource(out);
    expect(quantized.envelope.config).toEqual({ about: 'toys', toy: { layers: 2 } });
    expect(JSON.parse(quantized.envelope.fingerprint)[1]).toEqual([
      { name: 'a', stored: 'out-in', tensors: ['a.rows8', 'a.step'] },
      { name: 'b', stored: 'in-out', tensors: ['b.rows8', 'b.step', 'b.turned'] },
    ]);
    await quantized.close();
    await dequantizeModel(out, back);
    const dense = await openSource(back);
    expect(dense.envelope.config).toEqual({ about: 'toys' });
    expect(JSON.parse(dense.envelope.fingerprint)[1]).toEqual([
      { name: 'a', stored: 'out-in', tensors: ['a.weight'] },
      { name: 'b', stored: 'in-out', tensors: ['b.weight'] },
    ]);
    await dense.close();
  });

  it('replaces its own files and no others, and says how they should be called', async () => {
    const input = await toyModel();
    const [out, other] = [freshPath('out.toy'), freshPath('x.safetensors')];
    await quantizeModel(input, out);
    await quantizeModel(input, out, { force: true });
    fs.writeFileSync(other, encode({ 'a.weight': SOURCE['a.weight']! }));
    for (const dryRun of [true, false]) {
      const error = await failure(() => quantizeModel(input, other, { force: true, dryRun }));
      expect(error.message).toMatch(/exists and is not a toy: it is not replaced/);
    }
    fs.rmSync(other);
    const note = 'x.safetensors is a toy, whatever its name says: call it x.toy, or programs take it for another.';
    expect((await quantizeModel(input, other)).notes).toContain(note);
  });

  it('is written shard by shard', async () => {
    const input = await toyModel();
    const [whole, out, shard] = [freshPath('whole.toy'), freshPath('out.toy'), freshPath('shard')];
    await quantizeModel(input, whole);
    const plan = JSON.parse(JSON.stringify(await planConversion(input))) as Awaited<ReturnType<typeof planConversion>>;
    const result = await writeShard(plan, basename(input), input, shard);
    await finishShards(plan, { input, results: [result], paths: new Map([[basename(input), shard]]), output: out });
    expect(fs.readFileSync(out).equals(fs.readFileSync(whole))).toBe(true);
  });
});

describe('a scheme that is a folder and a row', () => {
  it('quantizes safetensors files where it comes first', async () => {
    SCHEMES.reverse();
    const input = freshPath('in.safetensors');
    fs.writeFileSync(
      input,
      encode({ 'a.weight': SOURCE['a.weight']!, 'a.bias': SOURCE['a.bias']!, 'c.table': SOURCE['c.table']! }),
    );
    await goThrough(input, 0.02);
  });

  it('lies beside layers of another one', async () => {
    const [input, first, second] = ['in', 'first', 'second'].map((name) => freshPath(`${name}.safetensors`)) as [
      string,
      string,
      string,
    ];
    fs.writeFileSync(input, encode({ 'a.weight': SOURCE['a.weight']!, 'x.weight': randomTensor([64, 64], 7) }));
    await quantizeModel(input, first, { include: 'a' });
    SCHEMES.reverse();
    const error = await failure(() => quantizeModel(first, second));
    expect(error.message).toContain('1 layer holds HQQ codes');
    expect((await failure(() => dequantizeModel(input, second))).message).toMatch(
      /is not quantized with toy bytes, .*HQQ: no tensor of it is called <module>\.rows8, .*or is called <module>\.W_q\. Nothing to do/,
    );
  });
});
