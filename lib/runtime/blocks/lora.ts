import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import type { Plan } from './plan.js';

// Adapters beside the weights: where a row of a text has one, a linear layer gives `W x + b + B (A x)`, with A [rank, in] and B [out, rank],
// which holds the adapter's scale. The weights stay as they are, codes or floats, and serve rows with other adapters and with none.

/** What an adapter adds to one linear layer. */
export interface LoraFactors {
  readonly rank: number;
  /** A: `[rank, inFeatures]` */
  readonly down: Float32Array;
  /** B times the scale: `[outFeatures, rank]` */
  readonly up: Float32Array;
}

/** An adapter in memory. */
export interface LoraAdapter {
  /** As requests call it. */
  readonly name: string;
  /** By module, as checkpoints call it: `model.layers.0.self_attn.q_proj`. */
  readonly factors: ReadonlyMap<string, LoraFactors>;
  /** Bytes that they take. */
  readonly bytes: number;
}

/** Adapters of a text, in the order in which they were loaded. Lists of the same adapters are alike, whatever the array. */
export type Adapters = readonly LoraAdapter[];

export function sameAdapters(a: Adapters, b: Adapters): boolean {
  return a.length === b.length && a.every((adapter, i) => adapter === b[i]);
}

/** An order in which lists of the same adapters are neighbours. */
export function compareAdapters(a: Adapters, b: Adapters): number {
  const [x, y] = [a, b].map((list) => list.map(({ name }) => name).join('\0')) as [string, string];
  return x < y ? -1 : Number(x > y);
}

/** @throws {HqqError} `ERR_INVALID_ARGUMENT`: what is read next was to have other adapters than the `held` positions before it */
export function refuseOthers(held: number, before: Adapters, given: Adapters): never {
  const namesOf = (list: Adapters) => (list.length > 0 ? list.map(({ name }) => show(name)).join(' and ') : 'none');
  const message = `Expected the adapter that the cache's ${held} positions were read with, ${namesOf(before)}, got ${namesOf(given)}`;
  throw new HqqError('ERR_INVALID_ARGUMENT', `${message}. A text with another one needs a cache of its own.`);
}

/** Rows `[from, to)`, which have the same adapters. */
interface Run {
  readonly from: number;
  readonly to: number;
  readonly adapters: Adapters;
}

/** Results that are added at once: of heads on large vocabularies a few rows. */
const PIECE = 1 << 20;

/** Which rows of a plan have which adapters. A row's bits depend on its own alone: rows of the operations behind it are independent. */
export class Lora {
  readonly #runs: readonly Run[];
  /** A x, and B (A x): steps run one after the other, so all layers share them. */
  readonly #scratch: [Float32Array, Float32Array] = [new Float32Array(0), new Float32Array(0)];

  private constructor(runs: readonly Run[]) {
    this.#runs = runs;
  }

  /** Of texts whose rows lie one after the other; undefined where none has an adapter. */
  static of(texts: readonly { readonly rows: number; readonly adapters: Adapters }[]): Lora | undefined {
    const runs: Run[] = [];
    let from = 0;
    for (const { rows, adapters } of texts) {
      const last = runs.at(-1);
      const to = from + rows;
      if (last && sameAdapters(last.adapters, adapters)) runs[runs.length - 1] = { ...last, to };
      else runs.push({ from, to, adapters });
      from = to;
    }
    return runs.some(({ adapters }) => adapters.length > 0) ? new Lora(runs) : undefined;
  }

  /** Those of some of the rows, which lie side by side elsewhere. */
  select(rows: ArrayLike<number>): Lora | undefined {
    let at = 0;
    const adaptersOf = (row: number): Adapters => {
      if (row < this.#runs[at]!.from) at = 0;
      while (row >= this.#runs[at]!.to) at++;
      return this.#runs[at]!.adapters;
    };
    return Lora.of(Array.from(rows, (row) => ({ rows: 1, adapters: adaptersOf(row) })));
  }

  /** Those of rows `[from, to)`. */
  slice(from: number, to: number): Lora | undefined {
    const cut = this.#runs.map((run) => ({
      rows: Math.max(0, Math.min(to, run.to) - Math.max(from, run.from)),
      adapters: run.adapters,
    }));
    return Lora.of(cut.filter(({ rows }) => rows > 0));
  }

  /** Adds to `out`, `[rows, outFeatures]`, what the adapters of its rows make of `x`, `[rows, inFeatures]`, for a layer. */
  addTo(plan: Plan, module: string, x: Float32Array, rows: number, out: Float32Array): void {
    const [ins, outs] = [x.length / rows, out.length / rows];
    for (const { from, to, adapters } of this.#runs) {
      const most = Math.max(1, Math.floor(PIECE / outs));
      for (const { factors } of adapters) {
        const own = factors.get(module);
        if (own === undefined) continue;
        for (let at = from; at < to; at += most) {
          const end = Math.min(at + most, to);
          this.#addPiece(plan, own, end - at, x.subarray(at * ins, end * ins), out.subarray(at * outs, end * outs));
        }
      }
    }
  }

  #addPiece(plan: Plan, { rank, down, up }: LoraFactors, batch: number, x: Float32Array, to: Float32Array): void {
    const inner = this.#room(0, batch * rank);
    const change = this.#room(1, to.length);
    addDense(plan, batch, x, down, inner);
    addDense(plan, batch, inner, up, change);
    plan.add(to.length, (threads) => [{ operation: 'add', args: { x: change, to, threads } }]);
  }

  #room(which: 0 | 1, length: number): Float32Array {
    if (this.#scratch[which].length < length)
      this.#scratch[which] = allocating('what adapters add', () => new Float32Array(length));
    return this.#scratch[which].subarray(0, length);
  }
}

const NO_BIAS = new Float32Array(0);

/** Adds `out = x . weights^T`. */
function addDense(plan: Plan, batch: number, x: Float32Array, weights: Float32Array, out: Float32Array): void {
  const [inFeatures, outFeatures] = [x.length / batch, out.length / batch];
  plan.add(batch * weights.length, (threads) => [
    { operation: 'denseLinear', args: { batch, inFeatures, outFeatures, x, weights, bias: NO_BIAS, out, threads } },
  ]);
}
