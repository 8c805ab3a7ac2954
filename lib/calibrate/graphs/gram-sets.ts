import type { Machine } from '../../compute/run.js';
import type { RunnableGraph, Tap } from '../../containers/runnable.js';
import { allocating } from '../../messages/allocating.js';
import { addProducts } from '../refine/grams.js';

/** Layers, and the sum of `x xT` over values that go into all of these, `[width, width]`. */
interface Gram {
  readonly names: readonly string[];
  readonly width: number;
  readonly sums: Float32Array;
}

/**
 * What goes into the layers of a graph, whose values are seen one after the other. Values that go into the same layers share a matrix: a
 * weight that is used a dozen times has one, not a dozen.
 */
export class GramSets {
  readonly #machine: Machine;
  /** The values that go into each layer. */
  readonly #inputs = new Map<string, Set<string>>();
  /** The set of layers that each value goes into. */
  readonly #sets = new Map<string, string>();
  readonly #grams = new Map<string, Gram>();
  readonly #seen = new Set<string>();
  readonly #done = new Set<string>();

  constructor({ given, parts }: Pick<RunnableGraph, 'given' | 'parts'>, machine: Machine) {
    this.#machine = machine;
    for (const { value, layers } of [...given, ...parts.flatMap(({ taps }) => taps)]) {
      for (const name of layers) this.#inputs.set(name, (this.#inputs.get(name) ?? new Set()).add(value));
      this.#sets.set(value, JSON.stringify([...new Set(layers)].sort()));
    }
  }

  /** How many matrices are in memory. */
  get size(): number {
    return this.#grams.size;
  }

  /** Adds `x [rows, width]` of a value. */
  async add({ value, layers, inFeatures: width }: Tap, x: Float32Array): Promise<void> {
    if (x.length === 0) return;
    const set = this.#sets.get(value)!;
    let gram = this.#grams.get(set);
    if (gram === undefined) {
      const sums = allocating(`${width} x ${width} sums of products`, () => new Float32Array(width * width));
      this.#grams.set(set, (gram = { names: layers, width, sums }));
    }
    await addProducts(gram.sums, x, x.length / width, this.#machine);
  }

  /** The layers whose last inputs these were; those of the same inputs together, since they share a factorization. */
  ready(taps: readonly Tap[]): readonly Gram[] {
    for (const { value } of taps) this.#seen.add(value);
    const together = new Map<string, { readonly sets: readonly string[]; readonly names: string[] }>();
    for (const name of new Set(taps.flatMap(({ layers }) => layers))) {
      const inputs = [...this.#inputs.get(name)!];
      if (!inputs.every((value) => this.#seen.has(value))) continue;
      const sets = [...new Set(inputs.map((value) => this.#sets.get(value)!))].sort();
      const key = JSON.stringify(sets);
      const own = together.get(key) ?? { sets, names: [] };
      own.names.push(name);
      together.set(key, own);
      this.#done.add(name);
    }
    return [...together.values()].flatMap(({ sets, names }) => {
      const [first, ...more] = sets.flatMap((set) => this.#grams.get(set) ?? []);
      if (first === undefined) return [];
      const sums = more.length === 0 ? first.sums : Float32Array.from(first.sums);
      for (const gram of more) for (let i = 0; i < sums.length; i++) sums[i] = sums[i]! + gram.sums[i]!;
      return [{ names, width: first.width, sums }];
    });
  }

  /** Lets go of what no layer waits for any more. */
  release(): void {
    for (const [set, { names }] of this.#grams)
      if (names.every((name) => this.#done.has(name))) this.#grams.delete(set);
  }
}
