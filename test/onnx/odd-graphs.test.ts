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
import { planModel } from '../../lib/allocate/plan-model.js';
import { openSource } from '../../lib/containers/list.js';
import { FreeNames } from '../../lib/containers/onnx/free-names.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { Encoder } from '../../lib/runtime/encoder/encoder.js';
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

  it('has biases of its own type again when its weights are floats, one for several products too', async () => {
    const half = (count: number) => Uint16Array.from({ length: count }, (_, i) => 0x2c00 + ((i * 37) % 0x400));
    const tensors = [
      tensor('v', 'float16', [K, N], half(K * N)),
      tensor('w', 'float16', [K, N], half(K * N).reverse()),
    ];
    const nodes = [
      node('Gemm', ['x', 'v', 'b'], ['g'], {}, { name: 'g' }),
      node('Gemm', ['x', 'w', 'b'], ['h'], {}, { name: 'h' }),
      node('Add', ['g', 'h'], ['y']),
    ];
    const [inputs, outputs] = [[value('x', 'float16', [2, K])], [value('y', 'float16', [2, N])]];
    const b = tensor('b', 'float16', [N], half(N));
    const input = written(model(graph({ nodes, tensors: [...tensors, b], inputs, outputs })));
    const [output, back] = [freshPath('q.onnx'), freshPath('back.onnx')];
    expect((await quantizeModel(input, output)).tensors).toHaveLength(2);
    for (const dtype of [undefined, 'float16'] as const) {
      const { tensors: layers } = await dequantizeModel(output, back, { dtype, force: true });
      expect(layers).toBe(2);
      const { b: bias, w } = read(fs.readFileSync(back)).tensors;
      expect([bias!.type, bias!.raw!.length]).toEqual([10, 2 * N]);
      expect(Buffer.compare(bias!.raw!, Buffer.from(half(N).buffer))).toBe(0);
      expect([w!.type, w!.raw!.length]).toEqual(dtype === undefined ? [1, 4 * K * N] : [10, 2 * K * N]);
    }
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

describe('codes that somebody else wrote', () => {
  const AT = { K, N, bits: 4, block_size: 32 };
  const CODES = Uint8Array.from({ length: N * 2 * 16 }, (_, i) => ((i * 2654435761) >>> 13) & 255);
  const codes = () => tensor('w_Q4', 'uint8', [N, 2, 16], CODES);
  const scales = () =>
    floats(
      's',
      [N, 2],
      gaussian(2 * N, 4).map((v) => Math.abs(v) / 8 + 0.01),
    );
  const product = (more: string[] = []) =>
    node('MatMulNBits', ['x', 'w_Q4', 's', ...more], ['p'], AT, { name: 'm', domain: 'com.microsoft' });
  const table = [
    node('Reshape', ['w_Q4', 'sh'], ['t']),
    node(
      ...(['GatherBlockQuantized', ['t', 'ids', 's'], ['e']] as const),
      { bits: 4, block_size: 32, gather_axis: 0, quantize_axis: 1 },
      { name: 'g', domain: 'com.microsoft' },
    ),
  ];
  const shape = () => tensor('sh', 'int64', [2], BigInt64Array.of(BigInt(N), 32n));
  const given = { x: X, ids: { shape: [2], data: [3, 7] }, z: { shape: [N * 32], data: [...gaussian(N * 32)] } };

  /** How far values of a graph are from what they were before its weights became floats. */
  async function restored(nodes: Buffer[], tensors: Buffer[], names: string[]) {
    const original = of(nodes, tensors);
    const output = freshPath('back.onnx');
    await dequantizeModel(written(original), output);
    const [before, after] = [read(original), read(fs.readFileSync(output))].map((own) => compute(own, given));
    return names.map((name) => distance(after![name]!.data, before![name]!.data));
  }

  const isClose = (errors: number[]) => expect(Math.max(...errors)).toBeLessThan(1e-6);

  it('are a table and a product of the same rows', async () => {
    isClose(await restored([...table, product()], [codes(), scales(), shape()], ['p', 'e']));
  });

  it('may lie beside a tensor that is called as their weight', async () => {
    const nodes = [product(), node('MatMul', ['x', 'w'], ['o'])];
    isClose(await restored(nodes, [codes(), scales(), weight()], ['p', 'o']));
  });

  it('may share the shape of a table with other nodes', async () => {
    isClose(await restored([...table, node('Reshape', ['z', 'sh'], ['r'])], [codes(), scales(), shape()], ['e', 'r']));
  });

  it('are refused where they cannot be read, or what they need must stay', async () => {
    const refused = (nodes: Buffer[], message: RegExp, tensors: Buffer[] = []) =>
      expectError(() => restored(nodes, [codes(), scales(), ...tensors], []), 'ERR_CHECKPOINT_FORMAT', message);
    await refused([product(['', 'order'])], /g_idx, input 4/, [tensor('order', 'int32', [K], new Int32Array(K))]);
    await refused([product(), node('Identity', ['s'], ['i'])], /shares "s" with nodes of other kinds/);
    await refused([...table, node('Add', ['t', 't'], ['u'])], /shares "t" with nodes/, [shape()]);
    const other = node('MatMulNBits', ['x', 'w_Q4', 's2'], ['q'], AT, { domain: 'com.microsoft' });
    await refused([product(), other], /with other scales/, [floats('s2', [N, 2], gaussian(2 * N))]);
  });
});

describe('float zeros in float16', () => {
  const half = (data: Float32Array) => {
    const bits = new Uint32Array(data.buffer);
    return Uint16Array.from(bits, (own) => {
      const exponent = ((own >> 23) & 255) - 112;
      return ((own >> 16) & 0x8000) | (exponent <= 0 ? 0 : (exponent << 10) | ((own >> 13) & 0x3ff));
    });
  };
  const halves = (data: Float32Array, k = K) =>
    model(
      graph({
        nodes: [matMul()],
        tensors: [tensor('w', 'float16', [k, N], half(data))],
        inputs: [value('x', 'float16', [2, k])],
        outputs: [value('y', 'float16', [2, N])],
      }),
    );

  for (const [k, groupSize] of [
    [64, 64],
    [512, 32],
  ] as const) {
    it(`are corrected by means of ${groupSize} inputs, which are no larger than they`, async () => {
      const original = halves(gaussian(k * N, 3, 0.05), k);
      const [input, output, back] = [written(original), freshPath('q.onnx'), freshPath('back.onnx')];
      const report = await quantizeModel(input, output, { zeroPoint: 'float', groupSize });
      const after = read(fs.readFileSync(output));
      const x = { shape: [2, k], data: Array<number>(2 * k).fill(1500) };
      const values = compute(after, { x });
      const sums = Object.entries(values).find(([name]) => name.startsWith('x_sums'))![1];
      for (const sum of sums.data) expect(sum).toBe(1500);
      // What is read back is what the graph computes.
      await dequantizeModel(output, back);
      expect(distance(compute(read(fs.readFileSync(back)), { x }).y!.data, values.y!.data)).toBeLessThan(2e-3);
      const { totals } = await compareModels(input, output);
      expect(totals.relativeError / report.totals.relativeError).toBeCloseTo(1, 2);
    });
  }

  it('are refused of weights that are too large for them', async () => {
    const large = gaussian(K * N, 3, 1).map((v) => 20_000 + 100 * v);
    await expectError(
      () => quantizeModel(written(halves(large)), freshPath('q.onnx'), { zeroPoint: 'float' }),
      'ERR_CHECKPOINT_CONTENT',
      /Expected weights of "w" below some 1023.*integer/,
    );
  });
});

for (const ir of [3, 4])
  it(`has tensors among its inputs where version ${ir} of the format asks for it`, async () => {
    const [k, n] = [320, 64];
    const nodes = [node('MatMul', ['x', 'w'], ['h'], {}, { name: 'm' }), node('Add', ['h', 'b'], ['y'])];
    const tensors = [floats('w', [k, n], gaussian(k * n)), floats('b', [n, 1], gaussian(n))];
    const inputs = [
      ...[value('x', 'float32', ['rows', k]), value('w', 'float32', [k, n]), value('b', 'float32', [n, 1])],
    ];
    const outputs = [value('y', 'float32', ['rows', n])];
    const [path, codes, back] = [freshPath('a.onnx'), freshPath('b.onnx'), freshPath('c.onnx')];
    fs.writeFileSync(path, model(graph({ nodes, tensors, inputs, outputs }), { ir }));
    await quantizeModel(path, codes, { zeroPoint: 'float', groupSize: 16 });
    await dequantizeModel(codes, back);
    for (const output of [codes, back]) {
      const written = read(fs.readFileSync(output));
      expect(new Set(written.inputs)).toEqual(new Set(['x', ...(ir < 4 ? Object.keys(written.tensors) : ['b'])]));
      expect(written.inputs).toHaveLength(new Set(written.inputs).size);
    }
  });

it('is nothing that hqq/runtime runs, and is called so', async () => {
  const path = freshPath('m.onnx');
  fs.writeFileSync(path, model(graph({ nodes: [matMul()], tensors: [weight()], inputs: IN, outputs: OUT })));
  const engines = /m\.onnx, an ONNX graph, which onnxruntime and transformers\.js run/;
  await expectError(() => planModel(path, { targetBits: 4 }), 'ERR_CHECKPOINT_CONTENT', engines);
  await expectError(() => Encoder.open(path), 'ERR_CHECKPOINT_CONTENT', engines);
});
