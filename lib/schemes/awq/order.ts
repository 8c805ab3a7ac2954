// How AWQ has the codes of eight output features in a word: those of an input feature side by side, in an order of its kernels.

/** Output features in a word of 4-bit codes. */
export const FIELDS = 8;

/** Of AutoAWQ's `gemm`: nibble `j`, the first in the lowest bits, holds feature `GEMM[j]` of the eight. */
export const GEMM: readonly number[] = [0, 2, 4, 6, 1, 3, 5, 7];

/** Input features that are unpacked together: what is read and written of them stays in the first-level cache. */
const BLOCK = 256;

/** The codes of words `[cols, rows / 8]`, `[rows, cols]`. */
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
