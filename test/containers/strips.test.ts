import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { planLayout } from '../../lib/containers/safetensors/layout.js';
import { storedType } from '../../lib/containers/stored-types.js';
import { FileWriter } from '../../lib/containers/writer.js';
import { freshPath } from '../support/checkpoints.js';

const { signal } = new AbortController();

/** Columns of a matrix `[rows, step]` of bytes, as they are written. */
function columnsOf(matrix: Uint8Array, rows: number, step: number, at: number, count: number) {
  const bytes = new Uint8Array(rows * count);
  for (let row = 0; row < rows; row++)
    bytes.set(matrix.subarray(row * step + at, row * step + at + count), row * count);
  return { columns: { at, count, rows, step }, bytes };
}

/** Widths of neighbouring columns that a matrix is cut into: words, odd numbers of bytes, and what is left. */
function cutsOf(step: number, widths: readonly number[]): { at: number; count: number }[] {
  const cuts: { at: number; count: number }[] = [];
  for (let at = 0; at < step; at += cuts.at(-1)!.count)
    cuts.push({ at, count: Math.min(widths[cuts.length % widths.length]!, step - at) });
  return cuts;
}

describe('narrow columns in a file', () => {
  it.each([
    ['in one strip', 300, 100, [8]],
    ['in one strip, wherever its words are', 300, 101, [8, 3, 1]],
    ['in several', 2048, 7000, [256]],
    ['in several, across where they meet', 2048, 7001, [500, 333, 1024]],
    ['wider than words are copied one by one', 2048, 4000, [900]],
    ['of few rows, as scales are', 32, 4096, [512]],
  ])('are what was written: %s', async (_, rows, step, widths) => {
    const path = freshPath();
    const layout = planLayout([{ name: 'a', type: storedType('U8'), shape: [rows, step] }]);
    const matrix = new Uint8Array(rows * step);
    for (let i = 0; i < matrix.length; i++) matrix[i] = Math.imul(i, 0x9e3779b1) >>> 24;
    const cuts = cutsOf(step, widths);
    // Every third comes last, and all at once, as of chunks that are computed side by side; the first as pieces that are no columns.
    const order = [...cuts.filter((_, i) => i % 3 !== 0), ...cuts.filter((_, i) => i % 3 === 0)];
    const writer = await FileWriter.create(path, layout);
    await Promise.all(
      order.map(({ at, count }) => {
        const { columns, bytes } = columnsOf(matrix, rows, step, at, count);
        const pieces = at > 0 ? columns : Array.from({ length: rows }, (_, row) => ({ at: row * step, count }));
        // Words are made in their place, wherever all of them have one.
        const lay = async (into: Uint8Array, stride: number) => {
          for (let row = 0; row < rows; row++) into.set(bytes.subarray(row * count, (row + 1) * count), row * stride);
        };
        const made = count % 8 === 0 ? { lay, bytes: async () => bytes } : bytes;
        const writing = writer.writePieces('a', pieces, made, signal);
        return writing.then(() => bytes.fill(0)); // the caller's again
      }),
    );
    await writer.finish();
    const written = fs.readFileSync(path);
    expect(Buffer.compare(written.subarray(layout.entries.get('a')!.begin), matrix)).toBe(0);
  });

  it('are missed where some were never written', async () => {
    const layout = planLayout([{ name: 'a', type: storedType('U8'), shape: [300, 100] }]);
    const writer = await FileWriter.create(freshPath(), layout);
    const matrix = new Uint8Array(300 * 100);
    const { columns, bytes } = columnsOf(matrix, 300, 100, 0, 60);
    await writer.writePieces('a', columns, bytes, signal);
    await expect(writer.finish()).rejects.toThrow(/every tensor to be written, got "a" not or not completely/);
    await expect(writer.writePieces('a', columns, bytes, signal)).rejects.toThrow(/every byte to be written once/);
    await writer.abandon();
  });
});
