import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as onnx from '../../interop/onnxruntime/graph.mjs';
import { compareModels } from '../../lib/models/compare.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { expectError } from '../containers/helpers.js';
import { freshPath } from '../support/checkpoints.js';
import { compute, distance } from '../support/onnx.js';

const { floats, gaussian, graph, model, node, read, tensor, value } = onnx;

const [K, N, ROWS] = [128, 160, 3];
const X = { shape: [ROWS, K], data: [...gaussian(ROWS * K, 5)] };
const IN = [value('x', 'float32', ['rows', K])];
const OUT = [value('y', 'float32', ['rows', N])];
const W = gaussian(K * N, 7, 0.05);
const B = gaussian(N, 8);

function written(bytes: Uint8Array, name = 'model.onnx'): string {
  const path = freshPath(name);
  fs.writeFileSync(path, bytes);
  return path;
}

/** What becomes of a graph, and how far what it gives is from what its weights, as they are read back, give. */
async function quantized(nodes: Buffer[], tensors: Buffer[], options: Parameters<typeof quantizeModel>[2] = {}) {
  const original = model(graph({ nodes, tensors, inputs: IN, outputs: OUT }));
  const output = freshPath('q.onnx');
  const report = await quantizeModel(written(original), output, options);
  const [before, after] = [read(original), read(fs.readFileSync(output))];
  const [y, given] = [compute(before, { x: X }).y!, compute(after, { x: X }).y!];
  return { report, after, output, ops: after.nodes.map(({ op }) => op), error: distance(given.data, y.data) };
}

const matMul = () => [node('MatMul', ['x', 'w'], ['y'], {}, { name: '/layer/MatMul' })];
const weight = () => floats('w', [K, N], W);

describe('a product with a constant matrix', () => {
  for (const [zeroPoint, most, parts] of [
    ['integer', 0.1, ['w_Q4', 'w_scales', 'w_zero_points']],
    ['symmetric', 0.105, ['w_Q4', 'w_scales']],
  ] as const) {
    it(`becomes MatMulNBits, with ${zeroPoint} zeros`, async () => {
      const { after, error, ops } = await quantized(matMul(), [weight()], { zeroPoint });
      expect(ops).toEqual(['MatMulNBits']);
      expect(after.nodes[0]!.attributes).toEqual({ K, N, bits: 4, block_size: 64, accuracy_level: 4 });
      expect(after.nodes[0]!.domain).toBe('com.microsoft');
      expect(after.opsets).toEqual({ '': 17, 'com.microsoft': 1 });
      expect(Object.keys(after.tensors)).toEqual(parts);
      expect(after.tensors.w_Q4!.shape).toEqual([N, K / 64, 32]);
      expect(error).toBeLessThan(most);
    });
  }

  it('is pruned, which its own zeros can be without being asked for', async () => {
    const { report } = await quantized(matMul(), [weight()], { prune: '2:4' });
    expect(report.totals.sparsity).toBe(0.5);
    for (const more of [{ zeroPoint: 'float' }, { to: 'hqq' }] as const)
      await expectError(
        () => quantized(matMul(), [weight()], { prune: '2:4', ...more }),
        'ERR_INVALID_OPTION',
        /zeroPoint to be integer or symmetric with prune/,
      );
  });

  for (const [groupSize, form] of [
    [32, 'float'],
    [16, 'float'],
  ] as const) {
    it(`has float zeros as a correction in ${form}, of groups of ${groupSize}`, async () => {
      const { after, error, ops, report } = await quantized(matMul(), [weight()], { zeroPoint: 'float', groupSize });
      expect(ops).toEqual(['MatMulNBits', 'MatMulNBits', 'MatMul', 'Add']);
      expect(after.nodes.at(-1)!.outputs).toEqual(['y']);
      expect(error).toBeLessThan(0.09);
      expect(error / report.totals.relativeError).toBeLessThan(1.2);
    });
  }

  it('shares sums of inputs, and has corrections in 8 bits where they are smaller', async () => {
    const [k, n] = [512, 64];
    const nodes = ['a', 'b'].map((name) => node('MatMul', ['x', name], [`y${name}`], {}, { name }));
    const tensors = ['a', 'b'].map((name, i) => floats(name, [k, n], gaussian(k * n, i + 1)));
    const original = model(
      graph({
        nodes: [...nodes, node('Add', ['ya', 'yb'], ['y'])],
        tensors,
        inputs: [value('x', 'float32', [1, k])],
        outputs: OUT,
      }),
    );
    const output = freshPath('q.onnx');
    await quantizeModel(written(original), output, { zeroPoint: 'float', groupSize: 32 });
    const after = read(fs.readFileSync(output));
    expect(after.nodes.filter(({ name }) => name.endsWith('_sums'))).toHaveLength(1);
    expect(after.nodes.map(({ op }) => op)).not.toContain('MatMul');
    expect(after.tensors.a_corr_Q8!.shape).toEqual([n, 1, 16]);
    const x = { shape: [1, k], data: [...gaussian(k, 3)] };
    const [y, given] = [compute(read(original), { x }).y!, compute(after, { x }).y!];
    expect(distance(given.data, y.data)).toBeLessThan(0.09);
    // What is read back is what the graph computes.
    const opened = await openModel(output);
    const w = ['a', 'b'].map((name) => opened.tensor(name));
    await opened.close();
    const sum = Array.from({ length: n }, (_, i) =>
      w.reduce((all, m) => all + x.data.reduce((s, v, j) => s + v * m[i * k + j]!, 0), 0),
    );
    expect(distance(given.data, sum)).toBeLessThan(1e-5);
  });

  for (const [nbits, groupSize, most] of [
    [8, 16, 0.01],
    [8, 128, 0.01],
    [2, 16, 0.31],
    [2, 32, 0.35],
    [4, 256, 0.11],
  ] as const) {
    it(`has ${nbits} bits, groups of ${groupSize}`, async () => {
      const { error } = await quantized(matMul(), [weight()], { nbits, groupSize });
      expect(error).toBeLessThan(most);
    });
  }

  for (const k of [108, 172, 131]) {
    it(`may have ${k} inputs, which blocks do not divide`, async () => {
      const data = gaussian(k * N, k, 0.05);
      const original = model(
        graph({
          nodes: matMul(),
          tensors: [floats('w', [k, N], data)],
          inputs: [value('x', 'float32', [ROWS, k])],
          outputs: OUT,
        }),
      );
      const [input, output] = [written(original), freshPath('q.onnx')];
      for (const zeroPoint of ['integer', 'float'] as const) {
        const report = await quantizeModel(input, output, { zeroPoint, groupSize: 32, force: true });
        const x = { shape: [ROWS, k], data: [...gaussian(ROWS * k, 1)] };
        const y = compute(read(fs.readFileSync(output)), { x }).y!;
        expect(distance(y.data, compute(read(original), { x }).y!.data)).toBeLessThan(0.09);
        const { totals } = await compareModels(input, output);
        expect(totals.relativeError / report.totals.relativeError).toBeCloseTo(1, 3);
      }
    });
  }

  it('takes the bias that is added', async () => {
    const nodes = [node('MatMul', ['x', 'w'], ['h'], {}, { name: 'm' }), node('Add', ['b', 'h'], ['y'])];
    const { ops, after, error } = await quantized(nodes, [weight(), floats('b', [N], B)]);
    expect(ops).toEqual(['MatMulNBits']);
    expect(after.nodes[0]!.inputs).toEqual(['x', 'w_Q4', 'w_scales', 'w_zero_points', '', 'b']);
    expect(error).toBeLessThan(0.06);
  });

  it('is a Gemm, turned or not, with a vector or a number', async () => {
    for (const [transB, bias] of [
      [0, floats('b', [N], B)],
      [1, floats('b', [N], B)],
      [1, floats('b', [1], B.slice(0, 1))],
    ] as const) {
      const data = floats('w', transB ? [N, K] : [K, N], W);
      const { error, ops } = await quantized(
        [node('Gemm', ['x', 'w', 'b'], ['y'], { transB }, { name: 'g' })],
        [data, bias],
      );
      expect(error).toBeLessThan(0.1);
      expect(ops[0]).toBe('MatMulNBits');
    }
  });

  it('may lie behind Transpose, Identity and Cast, or in a Constant node, in half precision', async () => {
    const bits = Uint16Array.from({ length: K * N }, (_, i) => ((i * 37) % 0x3c00) | ((i % 3) << 15));
    for (const [type, given] of [
      ['float16', bits],
      ['bfloat16', bits],
    ] as const) {
      const nodes = [
        node('Constant', [], ['c'], { value: { tensor: tensor('', type, [N, K], given) } }),
        node('Identity', ['c'], ['i']),
        node('Cast', ['i'], ['f'], { to: 1 }),
        node('Transpose', ['f'], ['t']),
        ...[node('MatMul', ['x', 't'], ['y'], {}, { name: 'm' })],
      ];
      const original = model(graph({ nodes, inputs: IN, outputs: OUT }));
      const output = freshPath('q.onnx');
      const report = await quantizeModel(written(original), output);
      const after = read(fs.readFileSync(output));
      expect(after.nodes.map(({ op }) => op)).toEqual(['MatMulNBits']);
      expect(after.tensors.c_scales!.type).toBe(1);
      expect(report.tensors[0]).toMatchObject({ name: 'c', shape: [N, K] });
    }
  });

  it('may be within another graph, and be used there and outside', async () => {
    const inner = graph({
      nodes: [node('MatMul', ['x', 'w'], ['z'], {}, { name: 'inner' })],
      outputs: [value('z', 'float32', ['rows', N])],
    });
    const nodes = [
      node('If', ['x'], ['h'], { then_branch: { graph: inner }, else_branch: { graph: inner } }),
      node('MatMul', ['x', 'w'], ['o'], {}, { name: 'outer' }),
      node('Add', ['h', 'o'], ['y']),
    ];
    for (const zeroPoint of ['integer', 'float'] as const) {
      const { after, error } = await quantized(nodes, [weight()], { zeroPoint });
      expect(error).toBeLessThan(0.1);
      expect(after.nodes[0]!.attributes.then_branch.nodes[0].op).toBe('MatMulNBits');
      expect(Object.keys(after.tensors)).not.toContain('w');
    }
  });
});

describe('a table of embeddings', () => {
  const [V, D] = [200, 128];
  const table = () => floats('embed', [V, D], gaussian(V * D, 2));
  const tied = () => [
    node('Gather', ['embed', 'ids'], ['h'], {}, { name: 'embed_tokens/Gather' }),
    node('Transpose', ['embed'], ['t']),
    node('MatMul', ['h', 't'], ['y'], {}, { name: '/lm_head/MatMul' }),
  ];
  const ids = { shape: [4], data: [0, 7, 199, 3] };

  for (const nbits of [8, 4] as const) {
    it(`becomes GatherBlockQuantized of ${nbits} bits, and the head that shares it MatMulNBits of the same bytes`, async () => {
      const original = model(graph({ nodes: tied(), tensors: [table()], outputs: OUT }));
      const output = freshPath('q.onnx');
      await quantizeModel(written(original), output, { embeddings: nbits });
      const after = read(fs.readFileSync(output));
      expect(after.nodes.map(({ op }) => op)).toEqual(['Reshape', 'GatherBlockQuantized', 'MatMulNBits']);
      expect(Object.values(after.tensors).filter(({ shape }) => shape[0] === V)).toHaveLength(3);
      const [y, given] = [compute(read(original), { ids }).y!, compute(after, { ids }).y!];
      expect(distance(given.data, y.data)).toBeLessThan(nbits === 8 ? 0.01 : 0.16);
    });
  }

  it('stays where nobody asks for it, and says so', async () => {
    const nodes = [...tied().slice(0, 1), node('MatMul', ['h', 'w'], ['y'], {}, { name: 'm' })];
    const original = model(graph({ nodes, tensors: [table(), weight()], outputs: OUT }));
    const report = await quantizeModel(written(original), freshPath('q.onnx'), { dryRun: true });
    expect(report.dense).toMatchObject([{ name: 'embed', reason: 'embedding' }]);
    expect(report.tensors).toHaveLength(1);
  });
});

describe('what is chosen', () => {
  const layers = (names: readonly string[]) => ({
    nodes: names.map((name, i) => node('MatMul', ['x', `w${i}`], [i === 0 ? 'y' : `y${i}`], {}, { name })),
    tensors: names.map((_, i) => floats(`w${i}`, [K, N], gaussian(K * N, i + 1))),
  });
  const NAMES = ['/model/layers.0/q_proj/MatMul', '/model/layers.1/q_proj/MatMul', '/lm_head/MatMul'];
  const plan = async (options: Parameters<typeof quantizeModel>[2]) => {
    const input = written(model(graph({ ...layers(NAMES), inputs: IN, outputs: OUT })));
    const report = await quantizeModel(input, freshPath('q.onnx'), { ...options, dryRun: true });
    return { names: report.tensors.map(({ name }) => name), report };
  };

  it('follows the names of nodes', async () => {
    expect((await plan({})).names).toEqual(['w0', 'w1']);
    expect((await plan({ exclude: '*layers.0*' })).names).toEqual(['w1']);
    expect((await plan({ include: ['/lm_head/MatMul', 'w0'] })).names).toEqual(['w0', 'w2']);
    const { report } = await plan({ overrides: { '*layers.1*': { nbits: 8 } } });
    expect(report.tensors.map(({ config }) => config.nbits)).toEqual([4, 8]);
    await expectError(() => plan({ exclude: '*nothing*' }), 'ERR_CHECKPOINT_CONTENT', /matches none/);
  });

  it('is no matrix that is small, or used otherwise; the report says why', async () => {
    const nodes = [
      ...layers(NAMES.slice(0, 1)).nodes,
      node('MatMul', ['x', 'small'], ['s'], {}, { name: 'small' }),
      node('Add', ['other', 'other2'], ['o']),
      node('Gemm', ['x', 'scaled'], ['g'], { alpha: { float: 2 } }),
    ];
    const tensors = [
      ...layers(NAMES.slice(0, 1)).tensors,
      floats('small', [K, 8], gaussian(K * 8)),
      floats('other', [K, N], W),
      floats('scaled', [K, N], W),
    ];
    const input = written(model(graph({ nodes, tensors, inputs: IN, outputs: OUT })));
    const { dense } = await quantizeModel(input, freshPath('q.onnx'), { dryRun: true });
    expect(dense.map(({ name, reason }) => `${name}: ${reason}`)).toEqual([
      'small: excluded by default: small: less than 64 rows or columns, or 16384 weights',
      'other: used by Add',
      'scaled: used by Gemm, with alpha or beta',
    ]);
    const all = await quantizeModel(input, freshPath('q.onnx'), { dryRun: true, include: '*' });
    expect(all.tensors.map(({ name }) => name)).toEqual(['w0', 'small']);
  });

  it('is refused where the operator has no such codes', async () => {
    await expectError(() => plan({ nbits: 3 }), 'ERR_INVALID_OPTION', /nbits to be one of 8, 4, 2 for MatMulNBits/);
    await expectError(
      () => plan({ groupSize: 8 }),
      'ERR_INVALID_OPTION',
      /groupSize to be one of 16, 32, 64, 128, 256/,
    );
    await expectError(() => plan({ groupSize: null }), 'ERR_INVALID_OPTION', /groupSize to be one of/);
    await expectError(() => plan({ to: 'awq' }), 'ERR_CHECKPOINT_CONTENT', /can become, which is onnx: onnx/);
  });
});

describe('a model that is quantized', () => {
  it('keeps all else byte for byte, what nobody knows too', async () => {
    const more = Buffer.concat([
      onnx.block(14, Buffer.from('meta')),
      onnx.block(999, 'from the future'),
      onnx.number(1000, 2 ** 40),
    ]);
    const nodes = [
      node('MatMul', ['x', 'w'], ['y'], {}, { name: 'm' }),
      node('Sqrt', ['s'], ['r'], { axes: [1, 2] }, { name: 'kept', domain: 'x.y' }),
    ];
    const unknown = Buffer.concat([onnx.floats('s', [2], gaussian(2)), onnx.block(77, 'unknown of a tensor')]);
    const original = model(graph({ nodes, tensors: [weight(), unknown], inputs: IN, outputs: OUT }), { more });
    const output = freshPath('q.onnx');
    await quantizeModel(written(original), output);
    const after = fs.readFileSync(output);
    for (const part of [more, unknown, nodes[1]!, ...IN, ...OUT]) expect(after.includes(part)).toBe(true);
    expect(after.includes(Buffer.from(W.buffer, 0, 64))).toBe(false);
  });

  it('is read back, and is compared with the original', async () => {
    const { output, report } = await quantized(matMul(), [weight()]);
    const opened = await openModel(output);
    expect(opened.tensors[0]).toMatchObject({
      name: 'w',
      shape: [N, K],
      quantized: { nbits: 4, groupSize: 64, packing: 'MatMulNBits' },
    });
    expect(opened.quantized('w').zero.every((zero) => Number.isInteger(zero))).toBe(true);
    await opened.close();
    const original = written(model(graph({ nodes: matMul(), tensors: [weight()], inputs: IN, outputs: OUT })));
    const { totals, tensors } = await compareModels(original, output);
    expect(tensors).toHaveLength(1);
    expect(totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    await expectError(
      () => quantizeModel(output, freshPath('again.onnx')),
      'ERR_CHECKPOINT_CONTENT',
      /quantized already: 1 node of MatMulNBits/,
    );
  });

  it('reads tensors that lie in another file of its folder, and lays them out so', async () => {
    const path = freshPath('model.onnx');
    const place = { location: 'weights.bin', offset: 128, length: W.byteLength };
    fs.writeFileSync(
      path,
      model(graph({ nodes: matMul(), tensors: [tensor('w', 'float32', [K, N], W, place)], inputs: IN, outputs: OUT })),
    );
    fs.writeFileSync(
      path.replace('model.onnx', 'weights.bin'),
      Buffer.concat([Buffer.alloc(128), Buffer.from(W.buffer)]),
    );
    const opened = await openModel(path);
    expect(opened.tensor('w')).toEqual(W);
    await opened.close();
    const output = path.replace('model.onnx', 'q.onnx');
    const report = await quantizeModel(path, output);
    const { tensors } = read(fs.readFileSync(output));
    expect(tensors.w_Q4!.external).toEqual({ location: 'q.onnx_data', offset: '0', length: String((K * N) / 2) });
    expect(tensors.w_Q4!.raw).toBeUndefined();
    const { totals } = await compareModels(path, output);
    expect(totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    expect(fs.readdirSync(path.replace('/model.onnx', '')).sort()).toEqual([
      ...['model.onnx', 'q.onnx', 'q.onnx_data', 'weights.bin'],
    ]);
    await expectError(() => quantizeModel(path, output), 'ERR_IO', /exists/);
    await quantizeModel(path, output, { force: true });
  });
});
