import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  block,
  floats,
  gaussian,
  graph,
  model,
  node,
  number,
  read,
  tensor,
  value,
} from '../../interop/onnxruntime/graph.mjs';
import { openSource } from '../../lib/containers/list.js';
import { FreeNames } from '../../lib/containers/onnx/free-names.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { expectError } from '../containers/helpers.js';
import { freshPath } from '../support/checkpoints.js';
import { compute, distance } from '../support/onnx.js';

const [K, N] = [64, 256];
const W = gaussian(K * N, 3, 0.05);
const X = { shape: [2, K], data: [...gaussian(2 * K, 5)] };
const IN = [value('x', 'float32', [2, K])];
const OUT = [value('y', 'float32', [2, N])];
const weight = (name = 'w') => floats(name, [K, N], W);
const matMul = (w = 'w', y = 'y') => node('MatMul', ['x', w], [y], {}, { name: 'm' });
const of = (nodes: Buffer[], tensors: Buffer[]) => model(graph({ nodes, tensors, inputs: IN, outputs: OUT }));

function written(bytes: Uint8Array): string {
  const path = freshPath('model.onnx');
  fs.writeFileSync(path, bytes);
  return path;
}

/** Why each tensor of a graph is no weight; undefined for one that is. */
async function reasons(bytes: Uint8Array) {
  const source = await openSource(written(bytes));
  const found = [...source.envelope.linears(source.entries)];
  await source.close();
  return found.map((item) => ('reason' in item ? item.reason : undefined));
}

describe('an odd graph', () => {
  it('may have tensors in attributes of any node, one or several', async () => {
    const half = tensor('', 'float32', [1], Float32Array.of(0.5));
    const several = Buffer.concat([block(1, 'tables'), block(10, half), block(10, half), number(20, 9)]);
    const own = [
      node('ConstantOfShape', ['shape'], ['c'], { value: { tensor: half } }),
      Buffer.concat([node('Kept', ['c'], ['d'], {}, { domain: 'x.y' }), block(5, several)]),
      node('Constant', [], ['e'], { value: { tensor: half }, sparse: { tensor: half } }),
      node('Constant', [], ['f'], { value: { tensor: half } }, { domain: 'x.y' }),
    ];
    const shape = tensor('shape', 'int64', [1], BigInt64Array.of(1n));
    const [output, back] = [freshPath('q.onnx'), freshPath('back.onnx')];
    const input = written(of([...own, matMul()], [weight(), shape]));
    await quantizeModel(input, output);
    await dequantizeModel(output, back);
    for (const path of [output, back]) {
      const after = fs.readFileSync(path);
      for (const one of own) expect(after.includes(one)).toBe(true);
    }
    expect((await compareModels(input, output)).dense.different).toEqual([]);
  });

  it('keeps a weight that is cast through an integer', async () => {
    const casts = [node('Cast', ['w'], ['i'], { to: 3 }), node('Cast', ['i'], ['f'], { to: 1 })];
    expect(await reasons(of([...casts, matMul('f')], [weight()]))).toEqual(['cast to what is no float']);
  });

  it('keeps the weights of nodes that lack an input or an output', async () => {
    for (const [op, inputs, outputs] of [
      ['MatMul', ['x', 'w'], []],
      ['MatMul', ['x', 'w'], ['']],
      ['MatMul', ['', 'w'], ['y']],
      ['Gemm', ['', 'w'], ['y']],
      ['Gather', ['w'], ['y']],
    ] as const)
      expect(await reasons(of([node(op, [...inputs], [...outputs])], [weight()]))).toEqual([
        `used by ${op}, which lacks an input or an output`,
      ]);
  });

  it('may have weights called x and x.weight', async () => {
    const nodes = [matMul('fc', 'a'), matMul('fc.weight', 'b'), node('Add', ['a', 'b'], ['y'])];
    const original = of(nodes, [weight('fc'), floats('fc.weight', [K, N], gaussian(K * N, 9, 0.05))]);
    const [input, output, back] = [written(original), freshPath('q.onnx'), freshPath('back.onnx')];
    const report = await quantizeModel(input, output);
    expect(report.tensors).toHaveLength(2);
    const [y, given] = [read(original), read(fs.readFileSync(output))].map((own) => compute(own, { x: X }).y!.data);
    expect(distance(given!, y!)).toBeLessThan(0.1);
    const { tensors, totals } = await compareModels(input, output);
    expect(tensors.map(({ name }) => name).sort()).toEqual(['fc', 'fc.weight']);
    expect(totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    await dequantizeModel(output, back);
    expect(distance(compute(read(fs.readFileSync(back)), { x: X }).y!.data, given!)).toBeLessThan(1e-5);
  });

  it('is refused where names that are needed are taken', async () => {
    const taken = (name: string, options: Parameters<typeof quantizeModel>[2], nodes = [matMul()]) =>
      expectError(
        () =>
          quantizeModel(
            written(of(nodes, [weight(), floats(name, [1], Float32Array.of(1))])),
            freshPath('q.onnx'),
            options,
          ),
        'ERR_CHECKPOINT_CONTENT',
        new RegExp(`has "${name}" already`),
      );
    await taken('hqq_sums_64_64_Q4', { zeroPoint: 'float' });
    await taken('hqq_sums_64_64_scales', { zeroPoint: 'float' });
    const tied = [node('Transpose', ['w'], ['t']), node('Gather', ['w', 'ids'], ['h']), matMul('t', 'o')];
    await taken('w_Q8_shape', { embeddings: 8, include: '*' }, tied);
  });

  it('costs time by its size alone, whatever many of it are called', () => {
    const taken = new Set<string>();
    let questions = 0;
    const names = new FreeNames((name) => (questions++, taken.has(name)), '#');
    for (let i = 0; i < 1000; i++) taken.add(names.of('w'));
    expect([taken.size, questions]).toEqual([1000, 1999]);
    expect([...taken].slice(0, 3)).toEqual(['w', 'w#1', 'w#2']);
  });
});
