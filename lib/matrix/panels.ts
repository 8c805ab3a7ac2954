import type { FormatId } from '../../binding.js';
import { LONGEST_GROUP, PANEL, QUAD_BYTES } from './constants.js';
import { FORMATS } from './format.js';

// How `linear` reads codes. A panel is 16 outputs. A quad is four consecutive weights of each: 64 bytes, one a code, in the
// order [output][weight]; a vector is as many bytes. A unit is some quads in some vectors, as the format's row says
// (lib/matrix/panel-unit.ts). So outputs are the lanes of a vector, codes are read in one stream, most are a shift away, and no
// bit is lost.

/** Quads of a group, with what pads it. */
export function quadsOf(format: FormatId, groupSize: number): number {
  const unit = FORMATS[format]!.panel.quads.length;
  return Math.ceil(Math.ceil(groupSize / 4) / unit) * unit;
}

/** Bytes of a group of a panel. */
export function groupBytes(format: FormatId, groupSize: number): number {
  const { quads, vectors } = FORMATS[format]!.panel;
  return (quadsOf(format, groupSize) / quads.length) * vectors * QUAD_BYTES;
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
