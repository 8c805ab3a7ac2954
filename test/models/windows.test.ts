import * as fs from 'node:fs';
import { expect, it } from 'vitest';
import { gaussian, graph, model, node, read, tensor, value } from '../../interop/onnxruntime/graph.mjs';
import type { LinearSite } from '../../lib/containers/container.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { inWindows, Rooms } from '../../lib/models/quantize/windows.js';
import { rowChunks } from '../../lib/schemes/rows/chunks.js';
import { freshPath } from '../support/checkpoints.js';

// Matrices that lie [in, out] are read in windows, which chunks are turned out of.

/** A matrix of two chunks. */
const [K, N] = [1040, 1100];

function turned<T extends Float32Array | Uint16Array>(from: T): T {
  const to = from.slice() as T;
  for (let k = 0; k < K; k++) for (let n = 0; n < N; n++) to[n * K + k] = from[k * N + n]!;
  return to;
}

/** Tensors that the weights of products become: `[in, out]` of MatMul, `[out, in]` of Gemm. */
async function quantized(op: 'MatMul' | 'Gemm', type: 'float32' | 'float16', options: object) {
  const numbers = gaussian(K * N, 3, 0.05);
  const wide = type === 'float32' ? numbers : Uint16Array.from(numbers, (x) => 0x2800 + Math.abs(x * 2048)); // anything finite
  const data = op === 'MatMul' ? wide : turned(wide);
  const shape = op === 'MatMul' ? [K, N] : [N, K];
  const weight = tensor('w', type, shape, data);
  const nodes = [node(op, ['x', 'w'], ['y'], op === 'Gemm' ? { transB: 1 } : {}, { name: '/m' })];
  const [inputs, outputs] = [[value('x', type, ['rows', K])], [value('y', type, ['rows', N])]];
  const [path, output] = [freshPath('model.onnx'), freshPath('out.onnx')];
  fs.writeFileSync(path, model(graph({ nodes, tensors: [weight], inputs, outputs })));
  const { totals } = await quantizeModel(path, output, options);
  return { tensors: read(fs.readFileSync(output)).tensors, error: totals.relativeError };
}

it.each([
  ['float32', { nbits: 4, groupSize: 32 }],
  ['float16', { nbits: 4, groupSize: 32, zeroPoint: 'float' }],
  ['float32', { nbits: 2, groupSize: 16 }],
  ['float32', { nbits: 8, prune: '2:4' }],
] as const)('%s: chunks that are turned out of a window become what they do as they lie, %o', async (type, options) => {
  const [got, want] = [await quantized('MatMul', type, options), await quantized('Gemm', type, options)];
  expect(Object.keys(got.tensors)).toEqual(Object.keys(want.tensors));
  for (const [name, { raw }] of Object.entries(want.tensors))
    expect(Buffer.compare(Buffer.from(got.tensors[name]!.raw!), Buffer.from(raw!)), name).toBe(0);
  expect(got.error).toBe(want.error);
});

it('shares a window among chunks as long as it is no larger than 64 MiB of floats, and has none for rows that are', () => {
  const windows = (outs: number, ins: number, stored: LinearSite['stored'], chunks = rowChunks([outs, ins], 1)) =>
    [...inWindows({ shape: [outs, ins], stored } as unknown as LinearSite, chunks, new Rooms())].map(
      ({ window, chunks: own }) => [window !== undefined, own.length],
    );
  expect(windows(4096, 4096, 'in-out')).toEqual([[true, 16]]);
  expect(windows(11008, 4096, 'in-out')).toEqual([
    [true, 16],
    [true, 16],
    [true, 11],
  ]);
  expect(windows(2, 17 * 2 ** 20, 'in-out')).toEqual([
    [false, 1],
    [false, 1],
  ]);
  expect(windows(4096, 4096, 'out-in').every(([window]) => window === false)).toBe(true);
  // Parts of rows are read, and rows far apart, which are of one chunk or of two.
  const ranges = (...at: readonly number[]) => at.map((row) => ({ at: row * 4096, count: 4096 }));
  const chunk = (weights: ReturnType<typeof ranges>) => ({ ...rowChunks([1, 4096], 1).next().value!, weights });
  const odd = [chunk(ranges(0, 5000)), chunk(ranges(1)), chunk([{ at: 5, count: 4096 }]), chunk(ranges(2, 3))];
  expect(windows(5001, 4096, 'in-out', odd.values() as never)).toEqual([
    [false, 1],
    [true, 1],
    [false, 1],
    [true, 1],
  ]);
});
