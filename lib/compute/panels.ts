import type { PanelArgs } from '../../binding.js';
import { PANEL } from '../matrix/constants.js';
import { formatNamed, packedRows } from '../matrix/format.js';
import { fitsPanels, panelSizes } from '../matrix/panels.js';
import type { QuantizedTensorLike, RunOptions } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { activeBackend } from './host.js';
import type { LoraSet } from './lora/set.js';
import { pinInputs, runTask, runTaskSync } from './run.js';

/** The weight matrix in panels, or as it was. */
export type Weights = { readonly panels: PanelArgs } | { readonly q: QuantizedTensorLike };

/** A weight matrix that is laid out for multiplication, if it can be. */
export class LaidOut {
  readonly q: QuantizedTensorLike;
  readonly weights: Weights;
  /** Adapters beside it. */
  lora: LoraSet | undefined;

  private constructor(q: QuantizedTensorLike, panels: PanelArgs | undefined) {
    this.q = q;
    this.weights = panels ? { panels } : { q };
  }

  /** Lays a matrix that is checked out on the calling thread. */
  static now(q: QuantizedTensorLike, threads: number): LaidOut {
    const job = layOutArgs(q);
    if (job) runTaskSync(activeBackend(), 'layOut', { ...job.args, threads });
    return new LaidOut(q, job?.panels);
  }

  /** Lays a matrix that is checked out on other threads. Its arrays can never be transferred from the call on. */
  static async later(given: QuantizedTensorLike, run: RunOptions & { readonly threads: number }): Promise<LaidOut> {
    const { nbits, groupSize, axis, shape, packing, packed, scale, zero } = given;
    // Whatever the caller does with the object meanwhile.
    const q = { nbits, groupSize, axis, shape: [shape[0], shape[1]] as const, packing, packed, scale, zero };
    pinInputs(packed, scale, zero); // also where nothing is laid out: the layer is made of them, a turn later
    const job = layOutArgs(q);
    if (job) await runTask(activeBackend(), 'layOut', { ...job.args, threads: run.threads }, run);
    return new LaidOut(q, job?.panels);
  }
}

/** The operation that lays `q`, which is checked, out in panels, and the panels; undefined where they do not fit. */
export function layOutArgs(q: QuantizedTensorLike) {
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

/** Some rows of a matrix in panels, on the calling thread: panels that they lie in are expanded. */
export function expandRows({ codes, meta, shape }: PanelArgs, rows: ArrayLike<number>, out: Float32Array): void {
  const [outFeatures, inFeatures] = shape as unknown as readonly [number, number];
  const panels = Math.ceil(outFeatures / PANEL);
  const [codesEach, metaEach] = [codes.length / panels, meta.length / panels];
  const expanded = new Float32Array(PANEL * inFeatures);
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
