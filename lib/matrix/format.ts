import type { FormatId } from '../../binding.js';
import { inOneVector, type PanelUnit, threeBitsInThreeVectors } from './panel-unit.js';

/** A row of the one list of formats. */
interface Row {
  readonly packing: string;
  readonly codeBits: number;
  readonly wordBytes: 1 | 4;
  /** Whether a last slab that is short may be padded: the reference's reader slices it off again only here. */
  readonly padded: boolean;
  /** How `linear` reads the codes. */
  readonly panel: PanelUnit;
}

/** Widest codes first. Adding a format: a row here and one in native/core/formats.h. */
const ROWS = [
  { packing: '8bit_u8', codeBits: 8, wordBytes: 1, padded: false, panel: inOneVector(8) },
  { packing: '4bit_u8', codeBits: 4, wordBytes: 1, padded: false, panel: inOneVector(4) },
  { packing: '3bit_32', codeBits: 3, wordBytes: 4, padded: true, panel: threeBitsInThreeVectors() },
  { packing: '2bit_u8', codeBits: 2, wordBytes: 1, padded: false, panel: inOneVector(2) },
  { packing: '1bit_u8', codeBits: 1, wordBytes: 1, padded: false, panel: inOneVector(1) },
] as const satisfies readonly Row[];

/** Names of the reference's layouts, as checkpoints spell them. */
export type Packing = (typeof ROWS)[number]['packing'];

/**
 * One way of storing codes.
 *
 * Field `f` of packed row `r` holds row `f * step + r` of the grouped code matrix, the first field in the top bits, with
 * `step = ceil(rows / fields)`. Layout: mobiusml/hqq `hqq/core/bitpack.py`.
 */
export interface PackFormat extends Row {
  /** Its place in the list: what a backend is told. */
  readonly id: FormatId;
  readonly packing: Packing;
  /** Codes in a word: as many as fit. */
  readonly fields: number;
}

export const FORMATS: readonly PackFormat[] = ROWS.map((row, id) => ({
  ...row,
  id,
  fields: Math.floor((8 * row.wordBytes) / row.codeBits),
}));

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
