import { turn } from '../../containers/transpose.js';
import { HqqError } from '../../messages/errors.js';

// Codes of so many bits in 32-bit words, as the engines' formats have them: one little-endian bit stream a row, code `i` at bits
// [i * bits, i * bits + bits), each row in words of its own. What other formats have down their columns is the transpose of that.

/** Words of a row of codes. */
export const wordsOf = (count: number, bits: number): number => Math.ceil((count * bits) / 32);

/** The codes of `[rows, wordsOf(cols, bits)]`, `[rows, cols]`. */
export function unpackStreams(words: Int32Array, rows: number, cols: number, bits: number, codes: Uint8Array): void {
  const width = wordsOf(cols, bits);
  const mask = 2 ** bits - 1;
  for (let row = 0; row < rows; row++) {
    let at = row * width;
    let to = row * cols;
    let word = 0;
    let left = 0;
    for (const end = to + cols; to < end; to++) {
      if (left >= bits) {
        codes[to] = word & mask;
        word >>>= bits;
        left -= bits;
        continue;
      }
      const next = words[at++]!;
      codes[to] = (word | (next << left)) & mask;
      const taken = bits - left;
      word = next >>> taken;
      left = 32 - taken;
    }
  }
}

/** Unpacks rows whose words hold whole codes, `floor(32 / bits)` each, the first in the lowest bits: `[rows, ceil(cols / those)]`. */
export function unpackFields(words: Int32Array, rows: number, cols: number, bits: number, codes: Uint8Array): void {
  const fields = Math.floor(32 / bits);
  const width = Math.ceil(cols / fields);
  const mask = 2 ** bits - 1;
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const word = words[row * width + Math.floor(col / fields)]!;
      codes[row * cols + col] = (word >>> ((col % fields) * bits)) & mask;
    }
  }
}

/** Arrays whose elements can be moved. */
type Elements = Int32Array | Uint8Array | Uint16Array | Float32Array;

const wordsIn = ({ buffer, byteOffset, length }: Elements) => new Uint32Array(buffer, byteOffset, length);

/** Rows and columns of a tile: what is read and written of it stays in the first-level cache. */
const TILE = 32;

/** Writes the transpose of `from`, `[rows, cols]`, to `to`, `[cols, rows]`. */
export function transpose<T extends Elements>(from: T, rows: number, cols: number, to: T): T {
  if (rows === 1 || cols === 1) {
    to.set(from.subarray(0, rows * cols));
    return to;
  }
  if (from.BYTES_PER_ELEMENT === 4) {
    turn(wordsIn(from), { at: 0, stride: cols, rows, cols }, wordsIn(to), { at: 0, stride: rows });
    return to;
  }
  for (let top = 0; top < rows; top += TILE) {
    const bottom = Math.min(rows, top + TILE);
    for (let left = 0; left < cols; left += TILE) {
      const right = Math.min(cols, left + TILE);
      for (let col = left; col < right; col++) {
        for (let row = top; row < bottom; row++) to[col * rows + row] = from[row * cols + col]!;
      }
    }
  }
  return to;
}

/** Zeros as the codes that they are. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a number that is none. */
export function zeroCodes(zeros: Float32Array, highest: number, codes: Uint8Array): Uint8Array {
  for (let i = 0; i < zeros.length; i++) {
    const zero = zeros[i]!;
    if (!(zero >= 0 && zero <= highest && Number.isInteger(zero))) {
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `Expected zeros to be codes, 0 to ${highest}, got ${zero}.`);
    }
    codes[i] = zero;
  }
  return codes;
}
