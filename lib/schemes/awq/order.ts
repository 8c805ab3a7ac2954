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
