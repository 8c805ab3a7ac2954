import type { PanelArgs } from '../../binding.js';
import { formatNamed, packedRows } from '../matrix/format.js';
import { fitsPanels, panelSizes } from '../matrix/panels.js';
import type { QuantizedTensorLike, RunOptions } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { activeBackend } from './host.js';
import { loadLora } from './lora/later.js';
import type { LoraSet } from './lora/set.js';
import type { Factors } from './lora/take.js';
import { pinInputs, runTask, runTaskSync } from './run.js';

/** The weight matrix in panels, or as it was. */
export type Weights = { readonly panels: PanelArgs } | { readonly q: QuantizedTensorLike };

/** Gives memory for the panels of `q`: zeros. With another shape, scales and zeros lie as that says, not as `sizes` has them. */
export type PanelMemory = (
  sizes: ReturnType<typeof panelSizes>,
  q: QuantizedTensorLike,
) => Pick<PanelArgs, 'codes' | 'meta'> & Partial<PanelArgs>;

const ownMemory: PanelMemory = (sizes) => ({ codes: new Uint8Array(sizes.codes), meta: new Float32Array(sizes.meta) });

/** A weight matrix that is laid out for multiplication, if it can be. */
export class LaidOut {
  readonly q: QuantizedTensorLike;
  readonly weights: Weights;
  /** Adapters beside it. */
  readonly lora: LoraSet | undefined;

  private constructor(q: QuantizedTensorLike, panels: PanelArgs | undefined, lora?: LoraSet) {
    this.q = q;
    this.lora = lora;
    this.weights = panels ? { panels } : { q };
  }

  /** Lays a matrix that is checked out on the calling thread. */
  static now(q: QuantizedTensorLike, threads: number): LaidOut {
    const job = layOutArgs(q);
    if (job) runTaskSync(activeBackend(), 'layOut', { ...job.args, threads });
    return new LaidOut(q, job?.panels);
  }

  /** Lays a matrix that is checked out on other threads. Its arrays can never be transferred from the call on. */
  static async later(
    given: QuantizedTensorLike,
    run: RunOptions & { readonly threads: number },
    adapters?: ReadonlyMap<string, Factors>,
    memory?: PanelMemory,
  ): Promise<LaidOut> {
    const { nbits, groupSize, axis, shape, packing, packed, scale, zero } = given;
    // Whatever the caller does with the object meanwhile.
    const q = { nbits, groupSize, axis, shape: [shape[0], shape[1]] as const, packing, packed, scale, zero };
    pinInputs(packed, scale, zero); // also where nothing is laid out: the layer is made of them, a turn later
    const job = layOutArgs(q, memory);
    if (job) await runTask(activeBackend(), 'layOut', { ...job.args, threads: run.threads }, run);
    return new LaidOut(q, job?.panels, adapters && new (await loadLora())(adapters, q.shape));
  }
}

/** The operation that lays `q`, which is checked, out in panels, and the panels; undefined where they do not fit. */
export function layOutArgs(q: QuantizedTensorLike, memory = ownMemory) {
  const [outFeatures, inFeatures] = q.shape;
  const format = formatNamed(q.packing)!;
  const { groupSize, axis, packed, scale, zero } = q;
  if (!fitsPanels(format.id, axis, inFeatures, groupSize)) return undefined;
  const sizes = panelSizes(format.id, outFeatures, inFeatures, groupSize);
  const panels = allocating(`the layer of ${outFeatures} x ${inFeatures} weights`, () => ({
    shape: Int32Array.of(outFeatures, inFeatures, groupSize, format.id),
    ...memory(sizes, q),
  }));
  const step = packedRows(format, (outFeatures * inFeatures) / groupSize);
  return { panels, args: { ...panels, step, packed, scale, zero } };
}
