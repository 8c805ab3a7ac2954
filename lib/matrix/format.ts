import type { FormatId } from '../../binding.js';

/** Names of the reference's layouts, as checkpoints spell them. */
export type Packing = '8bit_u8' | '4bit_u8' | '3bit_32' | '2bit_u8' | '1bit_u8';

/**
 * One way of storing codes in words.
 *
 * Field `f` of packed row `r` holds row `f * step + r` of the grouped code matrix, the first field in the top bits, with
 * `step = ceil(rows / fields)`. Layout: mobiusml/hqq `hqq/core/bitpack.py`.
 */
export interface PackFormat {
  readonly id: FormatId;
  readonly packing: Packing;
  readonly codeBits: number;
  readonly wordBytes: 1 | 4;
  /** Codes in a word: `floor(8 * wordBytes / codeBits)`. */
  readonly fields: number;
  /** Whether a last slab that is short may be padded: the reference's reader slices it off again only here. */
  readonly padded: boolean;
}

/** Widest codes first. Adding a format: one row here and one in native/core/format.h. */
export const FORMATS: readonly PackFormat[] = [
  { id: 0, packing: '8bit_u8', codeBits: 8, wordBytes: 1, fields: 1, padded: false },
  { id: 1, packing: '4bit_u8', codeBits: 4, wordBytes: 1, fields: 2, padded: false },
  { id: 2, packing: '3bit_32', codeBits: 3, wordBytes: 4, fields: 10, padded: true },
  { id: 3, packing: '2bit_u8', codeBits: 2, wordBytes: 1, fields: 4, padded: false },
  { id: 4, packing: '1bit_u8', codeBits: 1, wordBytes: 1, fields: 8, padded: false },
];

/** The reference's layout for codes of `nbits`: the narrowest that holds them, save that 5 and 6 take a byte. */
export function formatFor(nbits: number): PackFormat {
  return FORMATS.findLast((format) => format.codeBits >= nbits)!;
}

/** The layout with the reference's name, if there is one. */
export function formatNamed(packing: string): PackFormat | undefined {
  return FORMATS.find((format) => format.packing === packing);
}

/** Whether `rows` of the grouped matrix fit the layout without loss. */
export function holdsRows(format: PackFormat, rows: number): boolean {
  return format.padded || rows % format.fields === 0;
}

/** Rows of the packed matrix that hold `rows` rows of codes. */
export function packedRows(format: PackFormat, rows: number): number {
  return Math.ceil(rows / format.fields);
}

/** Words for a packed matrix of `words` elements. 32-bit words are signed, as the reference has them; the top bits are 0. */
export function allocateWords(format: PackFormat, words: number): Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
  return format.wordBytes === 1 ? new Uint8Array(words) : new Int32Array(words);
}
