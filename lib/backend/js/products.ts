import type { FormatId } from '../../../binding.js';
import { PANEL, PANELS, QUAD_BYTES } from '../../matrix/panels.js';

// Products of codes and x, straight from the words of a panel (lib/matrix/panels.ts). A word is a quad of one output, a byte a code; the
// four numbers of x that it meets are the same for all outputs, and stay in registers.

const WORDS = QUAD_BYTES / 4;

/** `dots[output]` += the products of one quad: four codes of each output, in the bytes of `words[at + output] >>> shift & mask`. */
export type AddQuad<X, Dots> = (
  words: Uint32Array,
  at: number,
  shift: number,
  mask: number,
  x: X,
  i: number,
  dots: Dots,
) => void;

/** Exact: integers of 32 bits. */
export const addBytes: AddQuad<Int8Array, Int32Array> = (words, at, shift, mask, x, i, dots) => {
  const a = x[i]!;
  const b = x[i + 1]!;
  const c = x[i + 2]!;
  const d = x[i + 3]!;
  for (let j = 0; j < PANEL; j++) {
    const quad = (words[at + j]! >>> shift) & mask;
    const low = (Math.imul(quad & 255, a) + Math.imul((quad >>> 8) & 255, b)) | 0;
    const high = (Math.imul((quad >>> 16) & 255, c) + Math.imul(quad >>> 24, d)) | 0;
    dots[j] = (dots[j]! + ((low + high) | 0)) | 0;
  }
};

/** In float64. */
export const addFloats: AddQuad<Float32Array, Float64Array> = (words, at, shift, mask, x, i, dots) => {
  const a = x[i]!;
  const b = x[i + 1]!;
  const c = x[i + 2]!;
  const d = x[i + 3]!;
  for (let j = 0; j < PANEL; j++) {
    const quad = (words[at + j]! >>> shift) & mask;
    const low = (quad & 255) * a + ((quad >>> 8) & 255) * b;
    const high = ((quad >>> 16) & 255) * c + (quad >>> 24) * d;
    dots[j] = dots[j]! + (low + high);
  }
};

const inEachByte = (mask: number) => Math.imul(mask, 0x01010101);
const merged = new Uint32Array(WORDS);

/** `dots[output]` = the products of `quads` quads, whose words begin at `at`, with `x` from `i` on. */
export function dotQuads<X, Dots extends Int32Array | Float64Array>(
  add: AddQuad<X, Dots>,
  words: Uint32Array,
  at: number,
  format: FormatId,
  quads: number,
  x: X,
  i: number,
  dots: Dots,
): void {
  const { bits, quads: unit, bytes } = PANELS[format]!;
  dots.fill(0);
  for (let first = 0; first < quads; first += unit, at += bytes / 4, i += 4 * unit) {
    if (bits === 3) {
      dotUnitOfThree(add, words, at, x, i, dots);
    } else {
      const mask = inEachByte((1 << bits) - 1);
      for (let quad = 0; quad < unit; quad++) add(words, at, 8 - bits * (quad + 1), mask, x, i + 4 * quad, dots);
    }
  }
}

function dotUnitOfThree<X, Dots>(
  add: AddQuad<X, Dots>,
  words: Uint32Array,
  at: number,
  x: X,
  i: number,
  dots: Dots,
): void {
  const mask = inEachByte(7);
  for (let quad = 0; quad < 6; quad++)
    add(words, at + (quad >> 1) * WORDS, 3 * (quad & 1), mask, x, i + 4 * quad, dots);
  for (let quad = 6; quad < 8; quad++) {
    const low = at + (quad - 6) * WORDS;
    const high = at + 2 * WORDS;
    for (let j = 0; j < WORDS; j++) {
      merged[j] = ((words[low + j]! >>> 6) & inEachByte(3)) | ((words[high + j]! >>> (quad - 2)) & inEachByte(4));
    }
    add(merged, 0, 0, mask, x, i + 4 * quad, dots);
  }
}
