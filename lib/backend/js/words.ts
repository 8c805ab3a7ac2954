import type { PackWordsArgs } from '../../../binding.js';
import type { Units } from './slices.js';

// Codes in words, as engines' formats have them. The twin of native/core/words.cc.

/** Output features in a word of 4-bit codes. */
const FIELDS = 8;

/** Lines between turns: turned, their words fill cache lines. */
const LINES = 32;

/** Columns that are packed together of eight rows each: what is read and written of them stays in the first-level cache. */
const BLOCK = 256;

export function* packWords({ rows, cols, bits, codes, order, turned, step, words }: PackWordsArgs): Units {
  const across = order.length > 0;
  const lines = across ? rows / FIELDS : rows;
  const width = across ? cols : Math.ceil((cols * bits) / 32);
  const [lineStep, wordStep] = turned ? [1, step] : [step, 1];
  const packed = new Int32Array(Math.min(lines, LINES) * (across ? BLOCK : width));
  for (let top = 0; top < lines; top += LINES) {
    const height = Math.min(LINES, lines - top);
    const part = across ? BLOCK : width;
    for (let left = 0; left < width; left += part) {
      const count = Math.min(part, width - left);
      for (let line = 0; line < height; line++) {
        const to = packed.subarray(line * part, line * part + count);
        if (across) packRows(codes, (top + line) * FIELDS * cols + left, cols, order, to);
        else packStream(codes.subarray((top + line) * cols, (top + line + 1) * cols), bits, to);
      }
      for (let i = 0; i < count; i++) {
        const place = top * lineStep + (left + i) * wordStep;
        for (let line = 0; line < height; line++) words[place + line * lineStep] = packed[line * part + i]!;
      }
      yield;
    }
  }
}

/** Words of a code each of eight rows, which are `stride` bytes apart from `first` on. */
function packRows(codes: Uint8Array, first: number, stride: number, order: Int32Array, words: Int32Array): void {
  words.fill(0);
  for (let field = 0; field < FIELDS; field++) {
    const from = first + order[field]! * stride;
    for (let i = 0; i < words.length; i++) words[i] = words[i]! | ((codes[from + i]! & 15) << (4 * field));
  }
}

function packStream(codes: Uint8Array, bits: number, words: Int32Array): void {
  const mask = 2 ** bits - 1;
  let at = 0;
  let word = 0;
  let used = 0;
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i]! & mask;
    word |= code << used;
    used += bits;
    if (used < 32) continue;
    words[at++] = word;
    used -= 32;
    word = used === 0 ? 0 : code >>> (bits - used);
  }
  if (used > 0) words[at] = word;
}
