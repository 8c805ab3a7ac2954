import type { Backend } from '../../../binding.js';
import { largeFloats } from '../../compute/memory.js';
import { inTurns } from '../../files/event-loop.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import type { RunOptions } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import { DenseLinear, type Linear } from '../blocks/linear.js';
import { Plan, type PlanRun } from '../blocks/plan.js';
import { placeColumns } from './columns.js';

/** Floats of weights that are in memory at once. Fewer, and each piece's products would be too few for what a call costs. */
const PIECE = 1 << 20;

/** Memory that layers read their weights into, one after the other; calls at once have each their own. */
export class Slots {
  #free: { readonly weights: Float32Array; results: Float32Array }[] = [];

  /** Runs `work` with memory for a piece, or for a row that is longer, and for as many results. */
  async use<T>(
    floats: number,
    results: number,
    work: (weights: Float32Array, results: Float32Array) => Promise<T>,
  ): Promise<T> {
    const at = this.#free.findIndex(({ weights }) => weights.length >= floats);
    const slot = this.#free.splice(at, at < 0 ? 0 : 1)[0] ?? {
      weights: allocating('a part of the weights', () => largeFloats(Math.max(PIECE, floats))),
      results: new Float32Array(0),
    };
    if (slot.results.length < results)
      slot.results = allocating('what a part of the weights gives', () => new Float32Array(results));
    try {
      return await work(slot.weights, slot.results);
    } finally {
      this.#free.push(slot);
    }
  }
}

/** Fills `out` with rows `[from, to)` of a matrix, in float32. */
type ReadRows = (from: number, to: number, out: Float32Array, run: RunOptions) => Promise<void>;

/** Weights that stay in their file: some rows at a time are read, in float32, whenever they are multiplied with. */
export class FiledLinear implements Linear {
  readonly outFeatures: number;
  readonly inFeatures: number;
  readonly bias: Float32Array | undefined;
  readonly #read: ReadRows;
  readonly #slots: Slots;

  constructor(
    [outFeatures, inFeatures]: readonly [outFeatures: number, inFeatures: number],
    bias: Float32Array | undefined,
    { read, slots }: { readonly read: ReadRows; readonly slots: Slots },
  ) {
    this.outFeatures = outFeatures;
    this.inFeatures = inFeatures;
    this.bias = bias;
    this.#read = read;
    this.#slots = slots;
  }

  get bytes(): number {
    return this.bias?.byteLength ?? 0;
  }

  async weights(run: RunOptions): Promise<OwnedFloat32Array> {
    const { outFeatures, inFeatures } = this;
    const all = allocating('a copy of the weights', () => new Float32Array(outFeatures * inFeatures));
    await this.#read(0, outFeatures, all, run);
    return all;
  }

  addTo(plan: Plan, x: Float32Array, batch: number, out: Float32Array): void {
    const { threads } = plan;
    plan.decide({ run: (backend, run) => this.#multiply(backend, { ...run, threads }, x, batch, out) });
  }

  /** Each result is a sum of its own, in the order of its row: the same bits, however rows are shared out to pieces. */
  #multiply(
    backend: Backend,
    run: PlanRun & { readonly threads: number },
    x: Float32Array,
    batch: number,
    out: Float32Array,
  ): Promise<void> {
    const { outFeatures, inFeatures, bias } = this;
    const most = Math.max(1, Math.min(outFeatures, Math.floor(PIECE / inFeatures)));
    return this.#slots.use(most * inFeatures, batch * most, async (weights, results) => {
      for (let from = 0; from < outFeatures; from += most) {
        const rows = Math.min(most, outFeatures - from);
        const piece = weights.subarray(0, rows * inFeatures);
        await this.#read(from, from + rows, piece, run);
        const own = bias?.subarray(from, from + rows);
        const plan = new Plan(run.threads);
        const to = rows === outFeatures ? out : results.subarray(0, batch * rows);
        new DenseLinear(piece, [rows, inFeatures], own).addTo(plan, x, batch, to);
        await plan.run(backend, run);
        if (to === out) continue;
        await inTurns(placeColumns(to, rows, out, outFeatures, from), run.signal);
      }
    });
  }
}
