import { formatNamed, packedRows } from '../matrix/format.js';
import { fitsPanels, panelSizes } from '../matrix/panels.js';
import { checkQuantized } from '../matrix/validate.js';
import type { QuantizedTensorLike } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';

/** The operation that lays `q` out in panels, and the panels; undefined where they do not fit. */
export function layOutArgs(q: QuantizedTensorLike) {
  checkQuantized(q);
  const [outFeatures, inFeatures] = q.shape;
  const format = formatNamed(q.packing)!;
  const { groupSize, axis, packed, scale, zero } = q;
  if (!fitsPanels(format.id, axis, inFeatures, groupSize)) return undefined;
  const sizes = panelSizes(format.id, outFeatures, inFeatures, groupSize);
  const panels = allocating(`the layer of ${outFeatures} x ${inFeatures} weights`, () => ({
    shape: Int32Array.of(outFeatures, inFeatures, groupSize, format.id),
    codes: new Uint8Array(sizes.codes),
    meta: new Float32Array(sizes.meta),
  }));
  const step = packedRows(format, (outFeatures * inFeatures) / groupSize);
  return { panels, args: { ...panels, step, packed, scale, zero } };
}
