import { provide } from '../../backend/js/backend.js';
import { LAYERS } from '../../backend/js/layers.js';
import { type Machine, runTask } from '../../compute/run.js';
import { allocating } from '../../messages/allocating.js';
import type { LinearInput } from '../../runtime/blocks/tap.js';

provide(LAYERS);

/** What went into linear layers that have one input. */
export interface Gram {
  readonly modules: readonly string[];
  readonly width: number;
  /** `[width, width]`, symmetric: the sum of `x xT` over all rows. */
  readonly sums: Float32Array;
}

/** Input features whose products are computed at once: what they take beside the sums is small. */
const BAND = 256;
const NO_BIAS = new Float32Array(0);

/** `x [batch, inFeatures]` times the transpose of `weights [outFeatures, inFeatures]`. */
export async function multiply(
  { x, weights, inFeatures }: { readonly x: Float32Array; readonly weights: Float32Array; readonly inFeatures: number },
  { backend, threads, signal }: Machine,
): Promise<Float32Array> {
  const [batch, outFeatures] = [x.length / inFeatures, weights.length / inFeatures];
  const out = new Float32Array(batch * outFeatures);
  const args = { batch, inFeatures, outFeatures, x, weights, bias: NO_BIAS, out, threads };
  await runTask(backend, 'denseLinear', args, { signal });
  return out;
}

/** Adds the products of all pairs of the features of `x [rows, width]` to their sums, `[width, width]`. */
export async function addProducts(sums: Float32Array, x: Float32Array, rows: number, machine: Machine): Promise<void> {
  const width = x.length / rows;
  const columns = new Float32Array(width * rows);
  for (let row = 0; row < rows; row++) for (let i = 0; i < width; i++) columns[i * rows + row] = x[row * width + i]!;
  for (let from = 0; from < width; from += BAND) {
    const band = columns.subarray(from * rows, Math.min(from + BAND, width) * rows);
    const products = await multiply({ x: band, weights: columns, inFeatures: rows }, machine);
    const into = sums.subarray(from * width);
    for (let i = 0; i < products.length; i++) into[i] = into[i]! + products[i]!;
  }
}

/** Sums the products of all pairs of input features, for every linear layer of a block: once for layers of one input. */
export class Grams {
  readonly #machine: Machine;
  readonly #all: { modules: string[]; width: number; sums: Float32Array }[] = [];
  #seen: { readonly x: Float32Array; readonly rows: number; readonly gram: Gram } | undefined;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** A tap. */
  readonly add = async ({ module, rows, x }: LinearInput): Promise<void> => {
    const width = x.length / rows;
    let gram = this.#all.find(({ modules }) => modules.includes(module));
    if (gram !== undefined && gram.modules[0] !== module) return; // counted with the first of its input
    if (gram === undefined && this.#seen?.x === x) {
      (this.#seen.gram.modules as string[]).push(module);
      return;
    }
    if (gram === undefined) {
      const sums = allocating(`${width} x ${width} sums of products`, () => new Float32Array(width * width));
      this.#all.push((gram = { modules: [module], width, sums }));
    }
    this.#seen = { x, rows, gram };
    await addProducts(gram.sums, x, rows, this.#machine);
  };

  /** All of the block. */
  get all(): readonly Gram[] {
    return this.#all;
  }
}
