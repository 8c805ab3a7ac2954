// How AWQ has the codes of eight output features in a word: those of an input feature side by side, in an order of its kernels.

/** Output features in a word of 4-bit codes. */
export const FIELDS = 8;

/** Of AutoAWQ's `gemm`: nibble `j`, the first in the lowest bits, holds feature `GEMM[j]` of the eight. */
export const GEMM: readonly number[] = [0, 2, 4, 6, 1, 3, 5, 7];

/** Input features that are packed together: what is read and written of them stays in the first-level cache. */
const BLOCK = 256;

/** Packs `[rows, cols]` codes, a byte each, into words `[cols, rows / 8]`. */
export function packColumns(
  codes: Uint8Array,
  rows: number,
  cols: number,
  order: readonly number[],
  words: Int32Array,
) {
  if (cols % 4 === 0 && codes.byteOffset % 4 === 0) {
    packFours(new Int32Array(codes.buffer, codes.byteOffset, (rows * cols) / 4), rows, cols / 4, order, words);
    return;
  }
  const width = rows / FIELDS;
  const [a, b, c, d, e, f, g, h] = order.map((field) => field * cols) as unknown as number[] & { length: 8 };
  for (let left = 0; left < cols; left += BLOCK) {
    const right = Math.min(cols, left + BLOCK);
    for (let word = 0; word < width; word++) {
      const top = word * FIELDS * cols;
      for (let col = left; col < right; col++) {
        const at = top + col;
        words[col * width + word] =
          codes[at + a!]! |
          (codes[at + b!]! << 4) |
          (codes[at + c!]! << 8) |
          (codes[at + d!]! << 12) |
          (codes[at + e!]! << 16) |
          (codes[at + f!]! << 20) |
          (codes[at + g!]! << 24) |
          (codes[at + h!]! << 28);
      }
    }
  }
}

/** The common case: codes of four input features at a time, which are four words. */
function packFours(fours: Int32Array, rows: number, cols: number, order: readonly number[], words: Int32Array): void {
  const width = rows / FIELDS;
  const [a, b, c, d, e, f, g, h] = order.map((field) => field * cols) as unknown as number[] & { length: 8 };
  for (let left = 0; left < cols; left += BLOCK / 4) {
    const right = Math.min(cols, left + BLOCK / 4);
    for (let word = 0; word < width; word++) {
      const top = word * FIELDS * cols;
      for (let col = left, to = 4 * left * width + word; col < right; col++, to += 4 * width) {
        const at = top + col;
        // Byte k of each is that of input feature k, and becomes byte 0, 1, 2 and 3 of its word.
        const first = fours[at + a!]! | (fours[at + b!]! << 4);
        const second = fours[at + c!]! | (fours[at + d!]! << 4);
        const third = fours[at + e!]! | (fours[at + f!]! << 4);
        const fourth = fours[at + g!]! | (fours[at + h!]! << 4);
        const low = (first & 0xff00ff) | ((second & 0xff00ff) << 8);
        const high = (third & 0xff00ff) | ((fourth & 0xff00ff) << 8);
        const lowOdd = ((first >>> 8) & 0xff00ff) | (second & 0xff00ff00);
        const highOdd = ((third >>> 8) & 0xff00ff) | (fourth & 0xff00ff00);
        words[to] = (low & 0xffff) | (high << 16);
        words[to + width] = (lowOdd & 0xffff) | (highOdd << 16);
        words[to + 2 * width] = (low >>> 16) | (high & 0xffff0000);
        words[to + 3 * width] = (lowOdd >>> 16) | (highOdd & 0xffff0000);
      }
    }
  }
}

/** Unpacks what `packColumns` packs. */
export function unpackColumns(
  words: Int32Array,
  rows: number,
  cols: number,
  order: readonly number[],
  codes: Uint8Array,
) {
  const width = rows / FIELDS;
  for (let left = 0; left < cols; left += BLOCK) {
    const right = Math.min(cols, left + BLOCK);
    for (let word = 0; word < width; word++) {
      for (let field = 0; field < FIELDS; field++) {
        const row = (word * FIELDS + order[field]!) * cols;
        for (let col = left; col < right; col++) codes[row + col] = (words[col * width + word]! >>> (4 * field)) & 15;
      }
    }
  }
}
