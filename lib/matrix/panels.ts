import type { FormatId } from '../../binding.js';

// How `linear` reads codes. A panel is 16 outputs. A quad is four consecutive weights of each: 64 bytes, one a code, in the
// order [output][weight]. Quads go into words as rows do in lib/matrix/format.ts, the first in the top bits, a unit of `quads` to
// 64-byte vectors; codes of 3 bits to three vectors a, b, c: quads 0 and 1 in the low six bits of a, 2 and 3 of b, 4 and 5 of
// c; the low two bits of quad 6 at the top of a, of 7 of b; their highest bits at the top of c. So outputs are the lanes of a
// vector, codes are read in one stream, most are a shift away, and a 3-bit code takes 3 bits.

export const PANEL = 16;
export const QUAD_BYTES = PANEL * 4;

/** Weights of a group for which x, as bytes, has a step of its own: kInputBlock of native/core/format.h. */
export const INPUT_BLOCK = 32;

/** kPanels of native/core/format.h, by format. */
export const PANELS: readonly { readonly bits: number; readonly quads: number; readonly bytes: number }[] = [
  { bits: 8, quads: 1, bytes: 64 },
  { bits: 4, quads: 2, bytes: 64 },
  { bits: 3, quads: 8, bytes: 192 },
  { bits: 2, quads: 4, bytes: 64 },
  { bits: 1, quads: 8, bytes: 64 },
];

/** Longest group whose products, summed as integers, fit 32 bits. */
const LONGEST_GROUP = 1 << 16;

/** Quads of a group, with what pads it. */
export function quadsOf(format: FormatId, groupSize: number): number {
  const { quads } = PANELS[format]!;
  return Math.ceil(Math.ceil(groupSize / 4) / quads) * quads;
}

/** Bytes of a group of a panel. */
export function groupBytes(format: FormatId, groupSize: number): number {
  const { quads, bytes } = PANELS[format]!;
  return (quadsOf(format, groupSize) / quads) * bytes;
}

/** Whether a matrix can be laid out in panels: its groups are parts of rows, and padding does not double them. */
export function fitsPanels(format: FormatId, axis: 0 | 1, inFeatures: number, groupSize: number): boolean {
  const padded = 4 * quadsOf(format, groupSize);
  return axis === 1 && inFeatures % groupSize === 0 && groupSize <= LONGEST_GROUP && padded <= 2 * groupSize;
}

/** Elements of the two arrays of a matrix in panels. */
export function panelSizes(format: FormatId, outFeatures: number, inFeatures: number, groupSize: number) {
  const groups = Math.ceil(outFeatures / PANEL) * (inFeatures / groupSize);
  return { codes: groups * groupBytes(format, groupSize), meta: groups * 2 * PANEL };
}
