import type { LanguageModelConfig } from '../config/model-config.js';
import type { KvCache } from './cache.js';
import { addLinears, type Linear } from './linear.js';
import type { Plan } from './plan.js';
import type { RopeRows } from './rope.js';
import type { Workspace } from './workspace.js';

/** RMSNorm: each row over its root mean square, times a weight. */
export class RmsNorm {
  readonly #weight: Float32Array;
  readonly #epsilon: number;

  constructor(weight: Float32Array, epsilon: number) {
    this.#weight = weight;
    this.#epsilon = epsilon;
  }

  /** Adds the norm of `x` (`[rows, cols]`) to a plan, which writes it to `out`. */
  addTo(plan: Plan, x: Float32Array, rows: number, out: Float32Array): void {
    const [weight, epsilon, cols] = [this.#weight, this.#epsilon, this.#weight.length];
    plan.add(2 * x.length, (threads) => [
      { operation: 'rmsNorm', args: { rows, cols, epsilon, x, weight, out, threads } },
    ]);
  }
}

/** Linear layers of a block, as checkpoints call them. */
export interface BlockLinears {
  /** Queries, from the attention's input. */
  readonly q: Linear;
  /** Keys. */
  readonly k: Linear;
  /** Values. */
  readonly v: Linear;
  /** From what was attended to back to the hidden size. */
  readonly o: Linear;
  /** Gate of the MLP. */
  readonly gate: Linear;
  /** What the gate is multiplied with. */
  readonly up: Linear;
  /** From the MLP back to the hidden size. */
  readonly down: Linear;
}

/** What a block needs to know of the step it is part of. */
export interface BlockStep {
  /** Arrays that the block reads and writes. */
  readonly space: Workspace;
  /** Keys and values of the text so far. */
  readonly cache: KvCache;
  /** Position of the first row. */
  readonly start: number;
  /** Cosines and sines of the rows. */
  readonly rope: RopeRows;
}

/** One decoder block: attention and a gated MLP, each after a norm and added to what comes in. */
export class Block {
  /** Its linear layers. */
  readonly linears: BlockLinears;
  readonly #config: LanguageModelConfig;
  readonly #layer: number;
  readonly #attentionNorm: RmsNorm;
  readonly #mlpNorm: RmsNorm;

  constructor(
    config: LanguageModelConfig,
    layer: number,
    linears: BlockLinears,
    norms: { attention: RmsNorm; mlp: RmsNorm },
  ) {
    this.#config = config;
    this.#layer = layer;
    this.linears = linears;
    this.#attentionNorm = norms.attention;
    this.#mlpNorm = norms.mlp;
  }

  /** Adds the block to a plan: it reads and writes `space.hidden`, and writes its rows of the cache. */
  addTo(plan: Plan, step: BlockStep): void {
    this.addBefore(plan, step.space);
    this.addAttention(plan, step);
    this.addAfter(plan, step.space);
  }

  /** The part before the attention, from `space.hidden` to queries, keys and values: the same at every position. @internal */
  addBefore(plan: Plan, { rows, hidden, attentionIn, queries, keys, values }: Workspace): void {
    const { q, k, v } = this.linears;
    this.#attentionNorm.addTo(plan, hidden, rows, attentionIn);
    addLinears(plan, [q, k, v], attentionIn, rows, [queries, keys, values]);
  }

  /** @internal */
  addAttention(plan: Plan, { space, cache, start, rope }: BlockStep): void {
    const { heads, kvHeads, headDim, windows } = this.#config;
    const { rows, queries, keys, values, attended } = space;
    turn(plan, queries, rows, heads, headDim, rope);
    turn(plan, keys, rows, kvHeads, headDim, rope);
    const layer = cache.layer(this.#layer);
    const window = windows[this.#layer]!;
    const seen = window > 0 ? Math.min(window, start + rows) : start + rows;
    plan.add(2 * rows * seen * heads * headDim, (threads) => [
      {
        operation: 'attention',
        args: {
          rows,
          heads,
          kvHeads,
          headDim,
          start,
          window,
          scale: 1 / Math.sqrt(headDim),
          capacity: layer.capacity,
          q: queries,
          k: keys,
          v: values,
          keys: layer.keys,
          values: layer.values,
          out: attended,
          threads,
        },
      },
    ]);
  }

  /** The part after the attention: it, too, is the same at every position. @internal */
  addAfter(plan: Plan, { rows, hidden, attended, mlpIn, gate, up, activated, change }: Workspace): void {
    this.linears.o.addTo(plan, attended, rows, change);
    accumulate(plan, change, hidden);
    this.#mlpNorm.addTo(plan, hidden, rows, mlpIn);
    addLinears(plan, [this.linears.gate, this.linears.up], mlpIn, rows, [gate, up]);
    // An exponential costs as much as some sixteen multiply-adds.
    plan.add(16 * gate.length, (threads) => [{ operation: 'swiglu', args: { gate, up, out: activated, threads } }]);
    this.linears.down.addTo(plan, activated, rows, change);
    accumulate(plan, change, hidden);
  }
}

function turn(plan: Plan, x: Float32Array, rows: number, heads: number, headDim: number, { cos, sin }: RopeRows): void {
  plan.add(2 * x.length, (threads) => [{ operation: 'rope', args: { rows, heads, headDim, cos, sin, x, threads } }]);
}

function accumulate(plan: Plan, x: Float32Array, to: Float32Array): void {
  plan.add(x.length, (threads) => [{ operation: 'add', args: { x, to, threads } }]);
}
