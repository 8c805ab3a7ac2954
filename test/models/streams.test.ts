import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { Scratch } from '../../lib/containers/scratch.js';
import { unpackFields, unpackStreams, wordsOf } from '../../lib/schemes/rows/streams.js';
import { packedWords } from '../../lib/schemes/rows/words.js'; // provides the packing in JavaScript, too
import type { WorkRun } from '../../lib/schemes/scheme.js';

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

describe('words of many codes are packed some lines at a time', () => {
  const [rows, cols] = [328, 4129];
  const codes = Uint8Array.from({ length: rows * cols }, (_, i) => (i * 37 + (i >> 9)) & 15);
  const runOf = (signal = new AbortController().signal) => ({ slot: new Scratch(), signal }) as WorkRun;

  test.each([
    ['across, turned', [0, 2, 4, 6, 1, 3, 5, 7], true],
    ['across', [0, 1, 2, 3, 4, 5, 6, 7], false],
    ['streams, turned', [], true],
    ['streams', [], false],
  ] as const)('%s: as in one go', async (_name, order, turned) => {
    const [lines, width] = order.length > 0 ? [rows / 8, cols] : [rows, wordsOf(cols, 4)];
    const [count, own] = turned ? [width, lines] : [lines, width];
    const made = packedWords('words', { codes, rows, cols, bits: 4, order, turned }, runOf());
    const words = (step: number) => new Int32Array(count * step).fill(-1);
    for (const step of [own, own + 5]) {
      const whole = words(step);
      const args = {
        codes,
        rows,
        cols,
        bits: 4,
        order: Int32Array.from(order),
        turned,
        step,
        words: whole,
        threads: 1,
      };
      openBackend('js').run('packWords', args);
      const laid = words(step);
      await made.lay(new Uint8Array(laid.buffer), step * 4);
      expect(Buffer.compare(new Uint8Array(laid.buffer), new Uint8Array(whole.buffer))).toBe(0);
      if (step === own) expect(Buffer.compare(await made.bytes(), new Uint8Array(whole.buffer))).toBe(0);
    }
  });

  test('and stop where they are aborted', async () => {
    const abort = new AbortController();
    const made = packedWords('words', { codes, rows, cols, bits: 4, turned: true }, runOf(abort.signal));
    const bytes = made.bytes(); // its first lines are packed already
    abort.abort(new Error('enough'));
    await expect(bytes).rejects.toThrow('enough');
  });
});
