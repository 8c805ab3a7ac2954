import type { ExpandArgs, FormatId, LayOutArgs, Words } from '../../../binding.js';
import { FORMATS } from '../../matrix/format.js';
import { groupBytes, PANEL, PANELS, QUAD_BYTES, quadsOf } from '../../matrix/panels.js';

type Units = Generator<void, void, void>;

const f = Math.fround;

/** Shape and sizes of a matrix in panels, read once. */
export function panelsOf(shape: Int32Array) {
  const [outFeatures, inFeatures, groupSize, format] = shape as unknown as [number, number, number, FormatId];
  const quads = quadsOf(format, groupSize);
  const groups = inFeatures / groupSize;
  const count = Math.ceil(outFeatures / PANEL);
  return { outFeatures, inFeatures, groupSize, format, quads, groups, count, bytes: groupBytes(format, groupSize) };
}

/** `codes[to + i]` = code of row `row`, column `col + i` of the grouped matrix. */
export function readCodes(
  words: Words,
  format: FormatId,
  cols: number,
  step: number,
  row: number,
  col: number,
  count: number,
  codes: Uint8Array,
  to: number,
): void {
  const { fields, codeBits } = FORMATS[format]!;
  const shift = (fields - 1 - Math.floor(row / step)) * codeBits;
  const mask = (1 << codeBits) - 1;
  const at = (row % step) * cols + col;
  for (let i = 0; i < count; i++) codes[to + i] = (words[at + i]! >>> shift) & mask;
}

/** One group of a panel: `codes[output * 4 * quads + weight]`. */
export function unpackPanel(panel: Uint8Array, at: number, format: FormatId, quads: number, codes: Uint8Array): void {
  const { bits, quads: unit, bytes } = PANELS[format]!;
  const stride = 4 * quads;
  for (let first = 0; first < quads; first += unit, at += bytes) {
    for (let quad = 0; quad < unit; quad++) {
      const to = 4 * (first + quad);
      if (bits === 3) {
        const c = at + 2 * QUAD_BYTES;
        const from = at + (quad < 6 ? quad >> 1 : quad - 6) * QUAD_BYTES;
        const shift = 3 * (quad & 1);
        for (let i = 0; i < QUAD_BYTES; i++) {
          const byte = panel[from + i]!;
          const code = quad < 6 ? (byte >> shift) & 7 : (byte >> 6) | ((panel[c + i]! >> (quad - 2)) & 4);
          codes[(i >> 2) * stride + to + (i & 3)] = code;
        }
      } else {
        const shift = 8 - bits * (quad + 1);
        const mask = (1 << bits) - 1;
        for (let j = 0, i = at; j < PANEL; j++, i += 4) {
          const k = j * stride + to;
          codes[k] = (panel[i]! >> shift) & mask;
          codes[k + 1] = (panel[i + 1]! >> shift) & mask;
          codes[k + 2] = (panel[i + 2]! >> shift) & mask;
          codes[k + 3] = (panel[i + 3]! >> shift) & mask;
        }
      }
    }
  }
}

function packPanel(codes: Uint8Array, format: FormatId, quads: number, panel: Uint8Array, at: number): void {
  const { bits, quads: unit, bytes } = PANELS[format]!;
  const stride = 4 * quads;
  panel.fill(0, at, at + (quads / unit) * bytes);
  for (let q = 0; q < quads; q++) {
    const quad = q % unit;
    const vector = at + ((q - quad) / unit) * bytes;
    for (let i = 0; i < QUAD_BYTES; i++) {
      const code = codes[(i >> 2) * stride + 4 * q + (i & 3)]!;
      if (bits === 3) {
        const [a, b, c] = [vector + i, vector + QUAD_BYTES + i, vector + 2 * QUAD_BYTES + i];
        if (quad < 6) {
          const into = quad < 2 ? a : quad < 4 ? b : c;
          panel[into] = panel[into]! | (code << (3 * (quad & 1)));
        } else {
          const into = quad === 6 ? a : b;
          panel[into] = panel[into]! | ((code & 3) << 6);
          panel[c] = panel[c]! | ((code >> 2) << quad);
        }
      } else {
        panel[vector + i] = panel[vector + i]! | (code << (8 - bits * (quad + 1)));
      }
    }
  }
}

export function* layOut({ shape, step, packed, scale, zero, codes: panels, meta }: LayOutArgs): Units {
  const { outFeatures, groupSize, format, quads, groups, count, bytes } = panelsOf(shape);
  meta.fill(0); // what pads the last panel
  const codes = new Uint8Array(PANEL * 4 * quads);
  for (let panel = 0; panel < count; panel++) {
    const first = panel * PANEL;
    const outputs = Math.min(PANEL, outFeatures - first);
    codes.fill(0);
    for (let g = 0; g < groups; g++) {
      const at = panel * groups + g;
      for (let j = 0; j < outputs; j++) {
        const group = (first + j) * groups + g;
        readCodes(packed, format, groupSize, step, group, 0, groupSize, codes, j * 4 * quads);
        meta[at * 2 * PANEL + j] = scale[group]!;
        meta[(at * 2 + 1) * PANEL + j] = zero[group]!;
      }
      packPanel(codes, format, quads, panels, at * bytes);
      if (g % 16 === 15) yield;
    }
    yield;
  }
}

export function* expand({ shape, codes: panels, meta, out }: ExpandArgs): Units {
  const { outFeatures, inFeatures, groupSize, format, quads, groups, count, bytes } = panelsOf(shape);
  const codes = new Uint8Array(PANEL * 4 * quads);
  for (let panel = 0; panel < count; panel++) {
    const first = panel * PANEL;
    const outputs = Math.min(PANEL, outFeatures - first);
    for (let g = 0; g < groups; g++) {
      const at = panel * groups + g;
      unpackPanel(panels, at * bytes, format, quads, codes);
      for (let j = 0; j < outputs; j++) {
        const scale = meta[at * 2 * PANEL + j]!;
        const zero = meta[(at * 2 + 1) * PANEL + j]!;
        const to = (first + j) * inFeatures + g * groupSize;
        for (let k = 0; k < groupSize; k++) out[to + k] = f(f(codes[j * 4 * quads + k]! - zero) * scale);
      }
      if (g % 16 === 15) yield;
    }
    yield;
  }
}
