import type { ExpandArgs, FormatId, LayOutArgs } from '../../../binding.js';
import { PANEL, QUAD_BYTES } from '../../matrix/constants.js';
import { FORMATS } from '../../matrix/format.js';
import { groupBytes, quadsOf } from '../../matrix/panels.js';
import { readCodes } from './packing.js';
import type { Units } from './slices.js';

const f = Math.fround;

/** Shape and sizes of a matrix in panels, read once. */
export function panelsOf(shape: Int32Array) {
  const [outFeatures, inFeatures, groupSize, format] = shape as unknown as [number, number, number, FormatId];
  const quads = quadsOf(format, groupSize);
  const groups = inFeatures / groupSize;
  const count = Math.ceil(outFeatures / PANEL);
  return { outFeatures, inFeatures, groupSize, format, quads, groups, count, bytes: groupBytes(format, groupSize) };
}

/** One group of a panel: `codes[output * 4 * quads + weight]`. */
function unpackPanel(panel: Uint8Array, at: number, format: FormatId, quads: number, codes: Uint8Array): void {
  const unit = FORMATS[format]!.panel;
  const stride = 4 * quads;
  for (let first = 0; first < quads; first += unit.quads.length, at += unit.vectors * QUAD_BYTES) {
    for (let quad = 0; quad < unit.quads.length; quad++) {
      let others = 0; // the first piece of a code writes over what was there
      for (const { vector, shift, mask } of unit.quads[quad]!) {
        for (let j = 0, i = at + vector * QUAD_BYTES; j < PANEL; j++, i += 4) {
          const k = j * stride + 4 * (first + quad);
          codes[k] = (codes[k]! & others) | ((panel[i]! >> shift) & mask);
          codes[k + 1] = (codes[k + 1]! & others) | ((panel[i + 1]! >> shift) & mask);
          codes[k + 2] = (codes[k + 2]! & others) | ((panel[i + 2]! >> shift) & mask);
          codes[k + 3] = (codes[k + 3]! & others) | ((panel[i + 3]! >> shift) & mask);
        }
        others = 255;
      }
    }
  }
}

function packPanel(codes: Uint8Array, format: FormatId, quads: number, panel: Uint8Array, at: number): void {
  const unit = FORMATS[format]!.panel;
  const stride = 4 * quads;
  panel.fill(0, at, at + groupBytes(format, stride));
  for (let first = 0; first < quads; first += unit.quads.length, at += unit.vectors * QUAD_BYTES) {
    for (let quad = 0; quad < unit.quads.length; quad++) {
      for (const { vector, shift, mask } of unit.quads[quad]!) {
        for (let j = 0, i = at + vector * QUAD_BYTES; j < PANEL; j++, i += 4) {
          const k = j * stride + 4 * (first + quad);
          panel[i] = panel[i]! | ((codes[k]! & mask) << shift);
          panel[i + 1] = panel[i + 1]! | ((codes[k + 1]! & mask) << shift);
          panel[i + 2] = panel[i + 2]! | ((codes[k + 2]! & mask) << shift);
          panel[i + 3] = panel[i + 3]! | ((codes[k + 3]! & mask) << shift);
        }
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
