import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { unpackFields, unpackStreams, wordsOf } from '../../lib/schemes/rows/streams.js';
import '../../lib/schemes/rows/words.js'; // provides the packing in JavaScript

// Codes as compressed-tensors packs them: a stream of bits for each row, in words.

function packStreams(backend: string, codes: Uint8Array, rows: number, cols: number, bits: number): Int32Array {
  const [words, order] = [new Int32Array(rows * wordsOf(cols, bits)).fill(-1), new Int32Array(0)];
  const args = { codes, rows, cols, bits, order, turned: false, step: wordsOf(cols, bits), words, threads: 2 };
  openBackend(backend).run('packWords', args);
  return words;
}

describe.each(availableBackends())('bit streams in %s', (backend) => {
  test.each([
    [4, [3, 10, 1, 8, 15, 6, 13, 4, 11, 2, 9, 0, 7, 14, 5, 12], ['4d6f81a3', 'c5e7092b']],
    [
      3,
      [1, 2, 3, 4, 5, 6, 7, 0].concat([1, 2, 3, 4, 5, 6, 7, 0], [1, 2, 3, 4, 5, 6, 7, 0], [1, 2, 3, 4, 5, 6, 7, 0]),
      ['d11f58d1', '58d11f58', '1f58d11f'],
    ],
    [8, [200, 3, 127, 128], ['807f03c8']],
    [4, [7, 9, 4, 8, 0, 15, 2, 1], ['12f08497']],
  ])('of %i bits: known answers', (bits, codes, words) => {
    const packed = packStreams(backend, Uint8Array.from(codes), 1, codes.length, bits);
    expect([...packed].map((word) => (word >>> 0).toString(16).padStart(8, '0'))).toEqual(words);
    const back = new Uint8Array(codes.length);
    unpackStreams(packed, 1, codes.length, bits, back);
    expect([...back]).toEqual(codes);
  });

  test.each([1, 2, 3, 4, 5, 6, 7, 8])('of %i bits: rows of any length come back', (bits) => {
    for (const cols of [1, 2, 7, 8, 31, 32, 33, 64, 172]) {
      const codes = Uint8Array.from({ length: 3 * cols }, (_, i) => (i * 37 + 11) & (2 ** bits - 1));
      const packed = packStreams(backend, codes, 3, cols, bits);
      const back = new Uint8Array(3 * cols);
      unpackStreams(packed, 3, cols, bits, back);
      expect(back).toEqual(codes);
      if (32 % bits === 0) {
        unpackFields(packed, 3, cols, bits, back.fill(0));
        expect(back).toEqual(codes);
      }
    }
  });
});
