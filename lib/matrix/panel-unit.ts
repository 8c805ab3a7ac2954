/** Bits of a code that lie together: `code |= (byte >> shift) & mask`, and `byte |= (code & mask) << shift`. */
export interface PanelPiece {
  /** Of the unit's vectors. */
  readonly vector: number;
  readonly shift: number;
  readonly mask: number;
}

/** A unit of a panel: some quads in some vectors, byte over byte. See lib/matrix/panels.ts. */
export interface PanelUnit {
  readonly vectors: number;
  /** Where the codes of each quad lie: in one piece, or in two. */
  readonly quads: readonly (readonly [PanelPiece] | readonly [PanelPiece, PanelPiece])[];
}

/** As many quads as fit a byte, the first in its top bits. */
export function inOneVector(bits: number): PanelUnit {
  const mask = (1 << bits) - 1;
  const piece = (quad: number): PanelPiece => ({ vector: 0, shift: 8 - bits * (quad + 1), mask });
  return { vectors: 1, quads: Array.from({ length: 8 / bits }, (_, quad) => [piece(quad)] as const) };
}

/**
 * Eight quads of 3 bits in three vectors, so that no bit is lost and most codes are a shift away: two in the low six bits of
 * each; of the last two, the low bits at the top of vectors 0 and 1, the highest ones at the top of vector 2.
 */
export function threeBitsInThreeVectors(): PanelUnit {
  const whole = (quad: number) => [{ vector: quad >> 1, shift: 3 * (quad & 1), mask: 7 }] as const;
  const split = (quad: number) =>
    [
      { vector: quad - 6, shift: 6, mask: 3 },
      { vector: 2, shift: quad - 2, mask: 4 },
    ] as const;
  return { vectors: 3, quads: Array.from({ length: 8 }, (_, quad) => (quad < 6 ? whole(quad) : split(quad))) };
}
