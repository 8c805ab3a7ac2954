import type { FormatId } from '../../../binding.js';
import { PANEL, QUAD_BYTES } from '../../matrix/constants.js';
import { FORMATS } from '../../matrix/format.js';
import type { PanelPiece } from '../../matrix/panel-unit.js';

// Products of codes and x, straight from the words of a panel (lib/matrix/panels.ts). A word is a quad of one output, a byte a code; the
// four numbers of x that it meets are the same for all outputs, and stay in registers.

const WORDS = QUAD_BYTES / 4;

/** `dots[output]` += the products of one quad: four codes of each output, in the bytes of `words[at + output] >>> shift & mask`. */
type AddQuad<X, Dots> = (
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

/** A piece of a quad, in words: lib/matrix/panel-unit.ts. */
interface WordPiece {
  readonly from: number;
  readonly shift: number;
  /** In each byte. */
  readonly mask: number;
}

const inWords = ({ vector, shift, mask }: PanelPiece): WordPiece => ({
  from: vector * WORDS,
  shift,
  mask: Math.imul(mask, 0x01010101),
});

/** Of each format, the quads of a unit that lie in one piece, which come first, and those that lie in two. */
const UNITS = FORMATS.map(({ panel: { vectors, quads } }) => ({
  words: vectors * WORDS,
  whole: quads.filter(({ length }) => length === 1).map(([piece]) => inWords(piece)),
  split: quads.filter(({ length }) => length === 2).map((pieces) => pieces.map(inWords)),
}));

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
  const { words: step, whole, split } = UNITS[format]!;
  dots.fill(0);
  for (const end = i + 4 * quads; i < end; at += step) {
    for (let quad = 0; quad < whole.length; quad++, i += 4) {
      const { from, shift, mask } = whole[quad]!;
      add(words, at + from, shift, mask, x, i, dots);
    }
    if (split.length === 0) continue;
    addSplit(add, words, at, split, x, i, dots);
    i += 4 * split.length;
  }
}

const merged = new Uint32Array(WORDS);

/** `merged` = the codes that two pieces make, of quads at `a` and `b`. */
function merge(words: Uint32Array, a: number, aShift: number, aMask: number, b: number, bShift: number, bMask: number) {
  for (let j = 0; j < WORDS; j++)
    merged[j] = ((words[a + j]! >>> aShift) & aMask) | ((words[b + j]! >>> bShift) & bMask);
}

/** The same for quads of a unit that lie in two pieces each. */
function addSplit<X, Dots>(
  add: AddQuad<X, Dots>,
  words: Uint32Array,
  at: number,
  quads: readonly (readonly WordPiece[])[],
  x: X,
  i: number,
  dots: Dots,
): void {
  for (let quad = 0; quad < quads.length; quad++) {
    const [a, b] = [quads[quad]![0]!, quads[quad]![1]!];
    merge(words, at + a.from, a.shift, a.mask, at + b.from, b.shift, b.mask);
    add(merged, 0, 0, -1, x, i + 4 * quad, dots);
  }
}
