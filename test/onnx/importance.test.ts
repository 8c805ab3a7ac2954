import * as fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { floats, gaussian, graph, model, node, read, tensor, value } from '../../interop/onnxruntime/graph.mjs';
import { collectImportance } from '../../lib/calibrate/collect.js';
import type { Ort, OrtTensor } from '../../lib/calibrate/graphs/engine.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { cutGraph } from '../../lib/containers/onnx/run/parts.js';
import { openFile } from '../../lib/containers/onnx/source.js';
import { expectError } from '../containers/helpers.js';
import { freshPath } from '../support/checkpoints.js';
import { compute } from '../support/onnx.js';

const engine = vi.hoisted(() => ({ installed: true, refuses: '', runs: 0, ids: [] as number[] }));

/** In the place of onnxruntime, which tests do not install: the loops of test/support/onnx.ts. interop/ runs the real one. */
vi.mock('../../lib/calibrate/graphs/engine.js', async (original) => {
  const own = await original<typeof import('../../lib/calibrate/graphs/engine.js')>();
  const ort: Ort = {
    Tensor: class {
      constructor(
        readonly type: string,
        readonly data: unknown,
        readonly dims: readonly number[],
      ) {}
    },
    InferenceSession: {
      async create(bytes, { extra }) {
        if (engine.refuses !== '') throw new Error(`${engine.refuses}.\nmore`);
        const { model_external_initializers_file_folder_path: folder } = (extra as { session: Record<string, string> })
          .session;
        const part = read(Buffer.from(bytes));
        for (const one of Object.values(part.tensors)) {
          const { location, offset, length } = one.external as Record<string, string>;
          if (location === undefined) continue;
          const file = fs.readFileSync(join(folder!, location));
          Object.assign(one, { raw: file.subarray(Number(offset), Number(offset) + Number(length)) });
        }
        return {
          async run(feeds, fetches) {
            engine.runs++;
            if (feeds.input_ids) engine.ids.push(...Array.from(feeds.input_ids.data as number[], Number));
            const given = Object.entries(feeds).map(([name, { data, dims }]) => {
              return [name, { shape: dims, data: Array.from(data as number[], Number) }];
            });
            const values = compute(part, Object.fromEntries(given));
            return Object.fromEntries(
              fetches.map((name): [string, OrtTensor] => {
                const { data, shape } = values[name]!;
                return [name, { type: 'float32', data: Float32Array.from(data), dims: shape }];
              }),
            );
          },
          async release() {},
        };
      },
    },
  };
  return {
    ...own,
    hasOnnxRuntime: () => engine.installed,
    loadOnnxRuntime: (without: string | undefined) => (engine.installed ? ort : own.loadOnnxRuntime(without)),
  };
});

beforeEach(() => void Object.assign(engine, { installed: true, refuses: '', runs: 0, ids: [] }));

const [V, K, N] = [96, 64, 256];

/** Ids, a table that the head shares, a product, one of what is given. */
function network(): Buffer {
  const nodes = [
    node('Transpose', ['embed'], ['t']),
    node('Gather', ['embed', 'input_ids'], ['h']),
    node('MatMul', ['h', 'w'], ['m'], {}, { name: '/layer/MatMul' }),
    node('Gemm', ['m', 'v'], ['g'], {}, { name: '/last/Gemm' }),
    node('MatMul', ['g', 't'], ['logits'], {}, { name: '/lm_head/MatMul' }),
    node('MatMul', ['x', 'w'], ['unused'], {}, { name: '/other/MatMul' }),
  ];
  const tensors = [
    floats('embed', [V, K], gaussian(V * K, 1)),
    floats('w', [K, N], gaussian(K * N, 2, 0.1)),
    floats('v', [N, K], gaussian(N * K, 3, 0.1)),
  ];
  const inputs = [value('input_ids', 'int64', ['batch', 'sequence']), value('x', 'float32', ['rows', K])];
  return model(graph({ nodes, tensors, inputs, outputs: [value('logits', 'float32', ['batch', 'sequence', V])] }));
}

function written(bytes: Buffer): string {
  const path = freshPath('model.onnx');
  fs.writeFileSync(path, bytes);
  return path;
}

const meanSquares = (data: ArrayLike<number>, width: number): number[] =>
  Array.from({ length: width }, (_, i) => {
    let sum = 0;
    for (let at = i; at < data.length; at += width) sum += data[at]! ** 2;
    return (sum * width) / data.length;
  });

const ids = (...list: number[]) => ({
  type: 'int64',
  data: BigInt64Array.from(list.map(BigInt)),
  dims: [1, list.length],
});

describe('importance of a graph', () => {
  it('is the mean square of what goes into each layer, of the inputs that are given', async () => {
    const path = written(network());
    const x = gaussian(2 * K, 9);
    const own = { input_ids: ids(3, 90, 4, 4), x: { type: 'float32', data: x, dims: [2, K] } };
    const found = await collectImportance(path, { importance: { inputs: [own] } });
    expect(found).toMatchObject({ source: 'inputs', tokens: 1 });
    const values = compute(read(network()), {
      input_ids: { shape: [4], data: [3, 90, 4, 4] },
      x: { shape: [2, K], data: [...x] },
    });
    const expected = {
      w: meanSquares([...values.h!.data, ...x], K),
      v: meanSquares(values.m!.data, N),
      embed: meanSquares(values.g!.data, K),
    };
    expect([...found.meanSquares.keys()].sort()).toEqual(Object.keys(expected).sort());
    for (const [name, means] of Object.entries(expected)) {
      const far = means.map((mean, i) => Math.abs(found.meanSquares.get(name)![i]! / mean - 1));
      expect(Math.max(...far)).toBeLessThan(1e-6);
    }
  });

  it('is found with random ids below the rows of the table, the same ones for a seed', async () => {
    const path = written(network());
    const [a, b, c] = [
      await collectImportance(path, { tokens: 40, seed: 1 }),
      await collectImportance(path, { tokens: 40, seed: 1 }),
      await collectImportance(path, { tokens: 40, seed: 2 }),
    ];
    expect(a).toMatchObject({ source: 'random', tokens: 40 });
    expect(a.meanSquares).toEqual(b.meanSquares);
    expect(a.meanSquares.get('v')).not.toEqual(c.meanSquares.get('v'));
  });

  it('is found with ids as likely as a graph of language expects them, unless its logits know what follows', async () => {
    // A head whose logits are its bias, nearly: tokens below 32 come a hundred times as often as others.
    const bias = Float32Array.from({ length: V }, (_, id) => (id < 32 ? 0 : -Math.log(100)));
    const drawn = async (seesAll: boolean, name = 'logits') => {
      const nodes = [
        node('Gather', ['embed', 'input_ids'], ['e']),
        ...(seesAll
          ? [node('Transpose', ['e'], ['t']), node('MatMul', ['t', 'mix'], ['m']), node('Transpose', ['m'], ['h'])]
          : [node('Identity', ['e'], ['h'])]),
        node('MatMul', ['h', 'w'], ['g'], {}, { name: '/layer/MatMul' }),
        node('Gemm', ['g', 'head', 'bias'], [name], { transB: 1 }, { name: '/lm_head/Gemm' }),
      ];
      const tensors = [
        floats('embed', [V, K], gaussian(V * K, 1)),
        floats('w', [K, N], gaussian(K * N, 2, 0.1)),
        floats('head', [V, N], gaussian(V * N, 3, 1e-3)),
        floats('bias', [V], bias),
        floats('mix', [64, 64], gaussian(64 * 64, 4)),
      ];
      const inputs = [value('input_ids', 'int64', [64])];
      const outputs = [value(name, 'float32', [64, V])];
      const path = written(model(graph({ nodes, tensors, inputs, outputs })));
      engine.ids = [];
      await collectImportance(path, { tokens: 640, seed: 5 });
      const ids = engine.ids.slice(-640);
      return ids.filter((id) => id < 32).length / ids.length;
    };
    expect(await drawn(false)).toBeGreaterThan(0.9);
    expect(await drawn(true)).toBeLessThan(0.5);
    expect(await drawn(false, 'scores')).toBeLessThan(0.5);
  });

  it('is taken where a model is quantized, and a dry run says so', async () => {
    const path = written(network());
    const options = { groupSize: 32, nbits: 2, tokens: 300 } as const;
    const none = await quantizeModel(path, freshPath('none.onnx'), { ...options, importance: 'none' });
    for (const importance of ['auto', 'random'] as const) {
      const output = freshPath('out.onnx');
      const dry = await quantizeModel(path, output, { ...options, importance, dryRun: true });
      const report = await quantizeModel(path, output, { ...options, importance });
      expect(report).toMatchObject({ importance: 'random', notes: dry.notes });
      expect(dry.importance).toBe('random');
      expect(report.totals.relativeError).toBeGreaterThan(none.totals.relativeError);
    }
    const { length } = (await quantizeModel(path, freshPath('8.onnx'), { nbits: 8 })).notes;
    expect(length).toBe(0); // of 8 bits nothing is looked for
  });

  it('is none, with a note, where onnxruntime is missing or refuses the graph, and an error where it was asked for', async () => {
    const path = written(network());
    const output = freshPath('out.onnx');
    Object.assign(engine, { refuses: 'no kernel for Foo' });
    for (const dryRun of [true, false]) {
      const { importance, notes } = await quantizeModel(path, output, { dryRun });
      expect(importance).toBe('none');
      expect(notes.join()).toMatch(/Importance is none: .*onnxruntime says: no kernel for Foo\. All input/);
    }
    const asked = { importance: 'random', force: true } as const;
    await expectError(
      () => quantizeModel(path, output, asked),
      'ERR_CHECKPOINT_CONTENT',
      /no kernel for Foo\. Give inputs/,
    );
    Object.assign(engine, { installed: false });
    const { importance, notes } = await quantizeModel(path, output, { force: true });
    expect(importance).toBe('none');
    expect(notes.join()).toMatch(/npm install onnxruntime-node/);
    const missing = (advice: string) => new RegExp(`npm install onnxruntime-node.*working directory\\.${advice}$`);
    const without = missing(String.raw` Or do without \(--importance none\)\.`);
    await expectError(() => quantizeModel(path, output, asked), 'ERR_DEPENDENCY', without);
    await expectError(() => collectImportance(path), 'ERR_DEPENDENCY', missing('')); // which finds nothing else
    await expectError(() => collectImportance(path, { importance: 'own' }), 'ERR_CHECKPOINT_CONTENT', /importance own/);
  });

  it('refuses inputs that the graph has not, and lacks none', async () => {
    const given = (own: object) => ({ importance: { inputs: [own] as never } });
    const path = written(network());
    await expectError(() => collectImportance(path, given({})), 'ERR_INVALID_OPTION', /none for "input_ids"/);
    const more = { input_ids: ids(1), x: ids(1), y: ids(1) };
    await expectError(() => collectImportance(path, given(more)), 'ERR_INVALID_OPTION', /"y", too/);
    await expectError(() => collectImportance(path, given({ x: 1 })), 'ERR_INVALID_OPTION', /\{ inputs \}/);
  });
});

describe('error feedback in a graph', () => {
  const WIDE = 100; // of which the last group of 32 is a part of one
  const nodes = [
    node('MatMul', ['x', 'w'], ['a'], {}, { name: 'a' }),
    node('Gemm', ['x', 'v'], ['b'], { transB: 1 }, { name: 'b' }),
    node('MatMul', ['x', 's'], ['c'], {}, { name: 'c' }),
    node('MatMul', ['c', 's'], ['d'], {}, { name: 'd' }),
  ];
  const tensors = [
    floats('w', [WIDE, 64], gaussian(WIDE * 64, 1)),
    floats('v', [64, WIDE], gaussian(64 * WIDE, 2)),
    floats('s', [WIDE, WIDE], gaussian(WIDE * WIDE, 3, 0.1)),
  ];
  const outputs = ['a', 'b', 'c', 'd'].map((name) => value(name, 'float32', ['rows', name < 'c' ? 64 : WIDE]));
  const correlated = model(graph({ nodes, tensors, inputs: [value('x', 'float32', ['rows', WIDE])], outputs }));
  // Inputs that go together: a few causes, and a little of their own.
  const [causes, mix, own] = [gaussian(200 * 4, 4), gaussian(4 * WIDE, 5), gaussian(200 * WIDE, 6, 0.1)];
  const x = Float32Array.from(own, (noise, i) => {
    const [row, column] = [Math.floor(i / WIDE), i % WIDE];
    return [0, 1, 2, 3].reduce((sum, k) => sum + causes[row * 4 + k]! * mix[k * WIDE + column]!, noise);
  });
  const importance = { inputs: [{ x: { type: 'float32', data: x, dims: [200, WIDE] } }] };
  const options = { nbits: 2, groupSize: 32, include: ['*'], importance } as const;

  it('meets errors of a group in those after it, whichever way weights lie and however often they are used', async () => {
    const path = written(correlated);
    const given = { x: { shape: [200, WIDE], data: [...x] } };
    const exact = compute(read(correlated), given);
    const errors = async (refine: boolean) => {
      const output = freshPath('out.onnx');
      const { notes } = await quantizeModel(path, output, { ...options, refine });
      expect(notes.join()).toMatch(refine ? /as error feedback left them/ : /^$/);
      const got = compute(read(fs.readFileSync(output)), given);
      return ['a', 'b', 'c', 'd'].map((name) => {
        const far = [...got[name]!.data].map((one, i) => (one - exact[name]!.data[i]!) ** 2);
        return far.reduce((sum, one) => sum + one, 0);
      });
    };
    const [without, refined] = [await errors(false), await errors(true)];
    for (const [i, error] of refined.entries()) expect(error).toBeLessThan(0.8 * without[i]!);
  });

  it('leaves a layer whose inputs have squares that are not finite, and says so', async () => {
    const data = new Float32Array(2 * K).fill(1e25, 5, 6);
    const inputs = [{ input_ids: ids(3, 90, 4, 4), x: { type: 'float32', data, dims: [2, K] } }];
    const own = { nbits: 2, groupSize: 32, importance: { inputs }, refine: true } as const;
    const { notes } = await quantizeModel(written(network()), freshPath('out.onnx'), own);
    expect(notes.join()).toMatch(/1 layer of 2 \("w"\) have no error feedback.*no statistics of 1 layer of 2 \("w"\)/);
  });

  it('refuses what nothing is seen going into, as without', async () => {
    const path = written(correlated);
    const nothing = { inputs: [{ x: { type: 'float32', data: new Float32Array(), dims: [0, WIDE] } }] };
    for (const refine of [false, true])
      await expectError(
        () => quantizeModel(path, freshPath('out.onnx'), { ...options, refine, importance: nothing }),
        'ERR_CHECKPOINT_CONTENT',
        /"w", "v".*got none of any/,
      );
  });

  it('leaves tables that are looked up in, and says so; needs onnxruntime, and says that too', async () => {
    const path = written(network());
    const all = { nbits: 4, groupSize: 32, include: ['*'], embeddings: 4, refine: true } as const;
    const { notes, importance } = await quantizeModel(path, freshPath('out.onnx'), all);
    expect(importance).toBe('random');
    expect(notes.join()).toMatch(/1 layer of 3 \("embed"\) have no error feedback/);
    const dry = await quantizeModel(path, freshPath('out.onnx'), { ...all, dryRun: true });
    expect(notes).toEqual([notes[0], ...dry.notes]); // errors there are none of
    Object.assign(engine, { installed: false });
    const named = { ...all, importance: 'random' } as const;
    for (const dryRun of [true, false]) {
      const run = (options: object) => () => quantizeModel(path, freshPath('out.onnx'), { ...options, dryRun });
      const both = /do without \(--importance none, and no --refine\)\.$/;
      await expectError(run(all), 'ERR_DEPENDENCY', /npm install onnxruntime-node.*do without \(no --refine\)\.$/);
      await expectError(run(named), 'ERR_DEPENDENCY', both);
    }
    const own = () => quantizeModel(path, freshPath('out.onnx'), { ...all, importance: 'own' });
    await expectError(own, 'ERR_CHECKPOINT_CONTENT', /importance own/);
  });
});

it('cuts a graph into parts that each have few weights, and none that nothing needs', async () => {
  const path = written(network());
  const source = await openFile(path);
  const [{ graph: index }] = source.envelope.models as [(typeof source.envelope.models)[0]];
  const tap = (value: string, inFeatures: number) => ({ value, layers: [value], inFeatures });
  const taps = [tap('h', K), tap('m', N), tap('g', K)];
  const whole = cutGraph(index, taps);
  expect(whole).toMatchObject([{ inputs: ['input_ids'], outputs: ['h', 'm', 'g'] }]);
  expect(whole[0]!.nodes.map(({ op }) => op)).toEqual(['Gather', 'MatMul', 'Gemm']);
  const parts = cutGraph(index, taps, 1);
  expect(parts.map(({ inputs, last, constants }) => [inputs, last, [...constants]])).toEqual([
    [['input_ids'], ['input_ids'], ['embed']],
    [['h'], ['h'], ['w']],
    [['m'], ['m', 'g'], ['v']],
  ]);
  await source.close();
});

it('reads tensors that lie in another file where they lie', async () => {
  const w = gaussian(K * N, 2, 0.1);
  const path = freshPath('apart.onnx');
  const location = `${basename(path)}_data`;
  fs.writeFileSync(join(dirname(path), location), Buffer.concat([Buffer.alloc(64), Buffer.from(w.buffer)]));
  const tensors = [tensor('w', 'float32', [K, N], w, { location, offset: 64, length: w.byteLength })];
  const nodes = [
    node('MatMul', ['x', 'w'], ['h'], {}, { name: 'first' }),
    node('MatMul', ['h', 'v'], ['y'], {}, { name: 'second' }),
  ];
  tensors.push(floats('v', [N, K], gaussian(K * N, 4)));
  const [inputs, outputs] = [[value('x', 'float32', ['rows', K])], [value('y', 'float32', ['rows', K])]];
  fs.writeFileSync(path, model(graph({ nodes, tensors, inputs, outputs })));
  const { meanSquares } = await collectImportance(path, { tokens: 64 });
  const sum = (values: Float32Array) => values.reduce((a, b) => a + b, 0);
  expect(sum(meanSquares.get('w')!) / K).toBeCloseTo(1, 0);
  expect(sum(meanSquares.get('v')!) / N / (0.01 * K)).toBeCloseTo(1, 0);
});
