import type { PanelArgs } from '../../../binding.js';
import { activeBackend } from '../../backend/index.js';
import { runTaskSync } from '../../compute/run.js';
import { PANEL } from '../../matrix/constants.js';

/** Where a panel is expanded: a call ends in the turn in which it began. */
let room = new Float32Array(0);

/** Some rows of a matrix in panels, on the calling thread: panels that they lie in are expanded. */
export function expandRows({ codes, meta, shape }: PanelArgs, rows: ArrayLike<number>, out: Float32Array): void {
  const [outFeatures, inFeatures] = shape as unknown as readonly [number, number];
  const panels = Math.ceil(outFeatures / PANEL);
  const [codesEach, metaEach] = [codes.length / panels, meta.length / panels];
  if (room.length < PANEL * inFeatures) room = new Float32Array(PANEL * inFeatures);
  const expanded = room;
  const own = shape.slice();
  for (let i = 0; i < rows.length; i++) {
    const [panel, row] = [Math.floor(rows[i]! / PANEL), rows[i]! % PANEL];
    own[0] = Math.min(PANEL, outFeatures - panel * PANEL);
    runTaskSync(activeBackend(), 'expand', {
      shape: own,
      codes: codes.subarray(panel * codesEach, (panel + 1) * codesEach),
      meta: meta.subarray(panel * metaEach, (panel + 1) * metaEach),
      out: expanded.subarray(0, own[0] * inFeatures),
      threads: 1,
    });
    out.set(expanded.subarray(row * inFeatures, (row + 1) * inFeatures), i * inFeatures);
  }
}
