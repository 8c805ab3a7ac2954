import type { FormatId, PackArgs, Words } from '../../../binding.js';
import { FORMATS, type PackFormat } from '../../matrix/format.js';
import type { Units } from './slices.js';

/** Codes in words, both ways: lib/matrix/format.ts. */

export function shiftOf(format: PackFormat, field: number): number {
  return (format.fields - 1 - field) * format.codeBits;
}

export function addField(
  words: Words,
  at: number,
  codes: Uint8Array,
  from: number,
  count: number,
  shift: number,
): void {
  for (let c = 0; c < count; c++) words[at + c] = words[at + c]! | (codes[from + c]! << shift);
}

/** `codes[to + i]` = code of row `row`, column `col + i` of the grouped matrix. */
export function readCodes(
  words: Words,
  id: FormatId,
  cols: number,
  step: number,
  row: number,
  col: number,
  count: number,
  codes: Uint8Array,
  to: number,
): void {
  const format = FORMATS[id]!;
  const shift = shiftOf(format, Math.floor(row / step));
  const mask = (1 << format.codeBits) - 1;
  const at = (row % step) * cols + col;
  for (let i = 0; i < count; i++) codes[to + i] = (words[at + i]! >>> shift) & mask;
}

export function* pack({ rows, cols, step, format: id, codes, packed }: PackArgs): Units {
  const format = FORMATS[id]!;
  packed.fill(0);
  for (let row = 0; row < rows; row++) {
    addField(packed, (row % step) * cols, codes, row * cols, cols, shiftOf(format, Math.floor(row / step)));
    if (row % 16 === 15) yield;
  }
}

export function* unpack({ rows, cols, step, format, codes, packed }: PackArgs): Units {
  for (let row = 0; row < rows; row++) {
    readCodes(packed, format, cols, step, row, 0, cols, codes, row * cols);
    if (row % 16 === 15) yield;
  }
}
