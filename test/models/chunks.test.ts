import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { quantizeSync } from '../../lib/compute/quantize.js';
import type { Columns, Range, Ranges } from '../../lib/containers/range.js';
import { readRanges, writeRanges } from '../../lib/containers/ranges.js';
import { Checkpoint } from '../../lib/containers/safetensors/checkpoint.js';
import { planLayout } from '../../lib/containers/safetensors/layout.js';
import { Scratch } from '../../lib/containers/scratch.js';
import { storedType } from '../../lib/containers/stored-types.js';
import { FileWriter } from '../../lib/containers/writer.js';
import { formatFor } from '../../lib/matrix/format.js';
import { geometryOf } from '../../lib/matrix/geometry.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { checkChunks, chunksOf, MAX_CHUNK_WEIGHTS } from '../../lib/schemes/chunks.js';
import { encode, failure, freshPath, numbersOf, randomTensor, readBack } from '../support/checkpoints.js';

const never = new AbortController().signal;

/** A cut of a matrix whose groups are rows (axis 1) or columns. */
function cutOf(shape: readonly [number, number], axis: 0 | 1, nbits: 4 | 3 = 4) {
  return { geometry: geometryOf(shape, { groupSize: null, axis }), axis, format: formatFor(nbits) };
}

describe('groups too large for memory', () => {
  it('are refused, with the tensor and what to do', async () => {
    const cut = cutOf([2, MAX_CHUNK_WEIGHTS / 2 + 2], 1);
    const { code, message } = (await failure(() => checkChunks('a.weight', cut))) as { code?: string; message: string };
    expect(code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(message).toMatch(
      /^a\.weight: Expected groups of at most 33554432 weights.*got groups of 33554434\. Choose a smaller/,
    );
    expect((await failure(() => checkChunks('a', cutOf([MAX_CHUNK_WEIGHTS, 2], 0)))).message).toMatch(/2 of them/);
    checkChunks('a', cutOf([2, MAX_CHUNK_WEIGHTS / 2], 1));
    checkChunks('a', cutOf([128_256, 16_384], 0));
  });

  it('are refused before anything is read or written', async () => {
    const input = freshPath('in.safetensors');
    const cols = MAX_CHUNK_WEIGHTS;
    const header = Buffer.from(
      JSON.stringify({ 'a.weight': { dtype: 'BF16', shape: [2, cols], data_offsets: [0, cols * 4] } }),
    );
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.byteLength));
    fs.writeFileSync(input, Buffer.concat([length, header]));
    fs.truncateSync(input, 8 + header.byteLength + cols * 4); // sparse
    const error = await failure(() => quantizeModel(input, freshPath(), { groupSize: null, dryRun: true }));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(/^a\.weight: Expected groups of at most/);
  });

  it('long rows are worked on one packed row at a time', () => {
    const chunks = [...chunksOf(cutOf([40, 100_000], 1, 3), 1000)];
    expect(chunks.map(({ step }) => step)).toEqual([1, 1, 1, 1]);
  });
});

describe('Scratch', () => {
  it('says that memory does not suffice', async () => {
    const { code } = await failure(() => new Scratch().take('x', Uint8Array, 2 ** 52));
    expect(code).toBe('ERR_OUT_OF_MEMORY');
  });

  it('makes large buffers no larger than they must be', () => {
    const size = 9 * 2 ** 20 + 8;
    expect(new Scratch().take('x', Uint8Array, size).buffer.byteLength).toBe(size);
    expect(new Scratch().take('x', Uint8Array, 100_000).buffer.byteLength).toBe(131_072);
  });
});

const ROWS = 5000;
const COLS = 300;
const listed = (first: number, count: number): Range[] =>
  Array.from({ length: ROWS }, (_, row) => ({ at: row * COLS + first, count }));
const strided = (first: number, count: number): Columns => ({ at: first, count, rows: ROWS, step: COLS });

describe.each([
  ['ranges', listed],
  ['columns', strided],
] as const)('%s', (_, columns: (first: number, count: number) => Ranges) => {
  async function setUp() {
    const source = { x: randomTensor([ROWS, COLS], 5) };
    const input = freshPath('in.safetensors');
    fs.writeFileSync(input, encode(source));
    const checkpoint = await Checkpoint.open(input);
    const path = freshPath('out.safetensors');
    const writer = await FileWriter.create(
      path,
      planLayout([{ name: 'x', type: storedType('F32'), shape: [ROWS, COLS] }]),
    );
    return { source, tensor: checkpoint.entries.get('x')!, checkpoint, writer, path };
  }

  it('short ones are read and written in few calls, to the same bytes', async () => {
    const { source, tensor, checkpoint, writer, path } = await setUp();
    let reads = 0;
    const counted: Pick<Checkpoint, 'read'> = {
      read: (...call) => {
        reads++;
        return checkpoint.read(...call);
      },
    };
    const slot = new Scratch();
    for (const [first, count] of [
      [128, 128],
      [0, 128],
      [256, 44],
    ] as const) {
      const bytes = new Uint8Array(ROWS * count * 4);
      await readRanges(counted, tensor, columns(first, count), 4, bytes, slot, never);
      await writeRanges(writer, 'x', columns(first, count), 4, bytes, never);
    }
    expect(reads).toBeLessThan(80); // bands of a quarter of a MiB, where there are 15,000 ranges
    await writer.finish();
    await checkpoint.close();
    expect(Buffer.compare(readBack(path).get('x')!.bytes, source.x.bytes)).toBe(0);
  });

  it('an abort stops the writing', async () => {
    const { checkpoint, writer } = await setUp();
    const stop = new AbortController();
    const bytes = new Uint8Array(ROWS * 128 * 4);
    const writing = failure(() => writeRanges(writer, 'x', columns(0, 128), 4, bytes, stop.signal));
    stop.abort(new Error('enough'));
    expect((await writing).message).toBe('enough');
    expect((await failure(() => writer.finish())).message).toMatch(/a failed one/);
    await writer.abandon();
    await checkpoint.close();
  });

  it('bytes are written once, however they come', async () => {
    const { checkpoint, writer } = await setUp();
    const bytes = new Uint8Array(ROWS * COLS * 4);
    await writeRanges(writer, 'x', columns(100, 100), 4, bytes, never);
    for (const ranges of [columns(199, 2), columns(0, 101), [{ at: 150, count: 1 }]]) {
      expect((await failure(() => writeRanges(writer, 'x', ranges, 4, bytes, never))).message).toMatch(/written once/);
    }
    const outside = [...listed(0, 2), { at: ROWS * COLS, count: 1 }];
    expect((await failure(() => writeRanges(writer, 'x', outside, 4, bytes, never))).message).toMatch(
      /Expected bytes from 0/,
    );
    await writeRanges(writer, 'x', [{ at: 0, count: 100 }], 4, bytes, never);
    await writeRanges(writer, 'x', columns(200, 100), 4, bytes, never);
    await writeRanges(writer, 'x', listed(0, 100).slice(1), 4, bytes, never);
    await writer.finish();
    await checkpoint.close();
  });

  it('a tensor with one column that is not written is not whole', async () => {
    const { checkpoint, writer } = await setUp();
    const bytes = new Uint8Array(ROWS * COLS * 4);
    await writeRanges(writer, 'x', columns(0, 100), 4, bytes, never);
    await writeRanges(writer, 'x', columns(101, COLS - 101), 4, bytes, never);
    expect((await failure(() => writer.finish())).message).toMatch(/got "x" not or not completely/);
    const beyond = { at: COLS - 1, count: 2, rows: ROWS, step: COLS };
    expect((await failure(() => writeRanges(writer, 'x', beyond, 4, bytes, never))).message).toMatch(
      /written once|Expected bytes from 0/,
    );
    await writeRanges(writer, 'x', columns(100, 1), 4, bytes, never);
    await writer.finish();
    await checkpoint.close();
  });
});

it('a tall matrix on axis 0, in several chunks of columns, has the bytes of quantize', async () => {
  const shape = [65_536, 144] as const;
  const source = { 'x.weight': randomTensor(shape, 9, 'bfloat16') };
  const [input, out, back] = ['in', 'out', 'back'].map((name) => freshPath(`${name}.safetensors`)) as [
    string,
    string,
    string,
  ];
  fs.writeFileSync(input, encode(source));
  const config = { nbits: 4, axis: 0, groupSize: null, solver: 'minmax' } as const;
  await quantizeModel(input, out, config);
  const { buffer } = Uint8Array.from(source['x.weight'].bytes);
  const direct = quantizeSync({ data: new Uint16Array(buffer), dtype: 'bfloat16', shape }, config);
  const packed = readBack(out).get('x.W_q')!.bytes;
  expect(
    Buffer.compare(
      Buffer.from(packed),
      Buffer.from(direct.packed.buffer, direct.packed.byteOffset, direct.packed.byteLength),
    ),
  ).toBe(0);
  await dequantizeModel(out, back);
  const [a, b] = [numbersOf(readBack(back).get('x.weight')! as never), numbersOf(source['x.weight'])];
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  expect(worst).toBeLessThan(0.05);
}, 30_000);
