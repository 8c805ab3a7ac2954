import { describe, expect, test } from 'vitest';
import type { TensorEntry, TensorSink, TensorSource } from '../../lib/containers/container.js';
import { Scratch } from '../../lib/containers/scratch.js';
import { copyPiece, copyPieces } from '../../lib/models/stream/transfer.js';

describe('a tensor that is copied', () => {
  test('passes through the buffer in which weights are computed', async () => {
    const slot = new Scratch();
    const weights = slot.take('weights', Uint8Array, 2 * 1024 * 1024).buffer;
    const entry = { name: 'table', begin: 100, end: 100 + 5 * 1024 * 1024 } as TensorEntry;
    const through = new Set<ArrayBufferLike>();
    const written: number[] = [];
    const source = { read: async (_: TensorEntry, at: number, into: Uint8Array) => void into.fill(at >> 20) };
    const sink = {
      write: async (_: string, at: number, bytes: Uint8Array) => {
        through.add(bytes.buffer);
        written.push(at, bytes.length, bytes[0]!);
      },
    };
    const { signal } = new AbortController();
    for (const piece of copyPieces(entry))
      await copyPiece(source as unknown as TensorSource, entry, piece, sink as unknown as TensorSink, slot, signal);
    expect([through.size, through.has(weights)]).toEqual([1, true]);
    const MB = 1024 * 1024;
    expect(written).toEqual([0, 2 * MB, 0, 2 * MB, 2 * MB, 2, 4 * MB, MB, 4]);
  });
});
