import type { LanguageModelConfig } from '../config/model-config.js';
import type { LayerCache } from './cache.js';
import type { Frame } from './frame.js';
import { addLinears, type Linear } from './linear.js';
import type { RmsNorm } from './norm.js';
import type { Plan } from './plan.js';
import type { RopeRows } from './rope.js';
import type { Rows } from './rows.js';
import type { LinearInput } from './tap.js';

/** Linear layers of a block: what checkpoints call their modules, and which array of a frame goes into each. */
export const BLOCK_LINEARS = {
  /** Queries. */
  q: { module: 'self_attn.q_proj', input: 'attentionIn' },
  /** Keys. */
  k: { module: 'self_attn.k_proj', input: 'attentionIn' },
  /** Values. */
  v: { module: 'self_attn.v_proj', input: 'attentionIn' },
  /** From what was attended to back to the hidden size. */
  o: { module: 'self_attn.o_proj', input: 'attended' },
  /** Gate of the MLP. */
  gate: { module: 'mlp.gate_proj', input: 'mlpIn' },
  /** What the gate is multiplied with. */
  up: { module: 'mlp.up_proj', input: 'mlpIn' },
  /** From the MLP back to the hidden size. */
  down: { module: 'mlp.down_proj', input: 'activated' },
} as const satisfies Readonly<Record<string, { module: string; input: keyof Frame }>>;

/** The layers themselves. */
export type BlockLinears = { readonly [K in keyof typeof BLOCK_LINEARS]: Linear };

/** What a block is made of. */
interface BlockParts {
  readonly linears: BlockLinears;
  readonly attentionNorm: RmsNorm;
  readonly mlpNorm: RmsNorm;
  /** Of each head of queries, and of keys, where the architecture has such. */
  readonly headNorms: { readonly queries: RmsNorm; readonly keys: RmsNorm } | undefined;
}

/** Rows of one text, which lie side by side, and what is remembered of those before them. */
interface TextRows {
  readonly rows: number;
  readonly cache: LayerCache;
}

/** What checkpoints call a block. */
export function blockName(index: number): string {
  return `model.layers.${index}`;
}

/** One decoder block: attention and a gated MLP, each after a norm and added to what comes in. */
export class Block {
  readonly #config: LanguageModelConfig;
  readonly #index: number;
  readonly #parts: BlockParts;

  constructor(config: LanguageModelConfig, index: number, parts: BlockParts) {
    this.#config = config;
    this.#index = index;
    this.#parts = parts;
  }

  get linears(): BlockLinears {
    return this.#parts.linears;
  }

  /** The same block, but for some of its linear layers. */
  with(linears: Partial<BlockLinears>): Block {
    return new Block(this.#config, this.#index, { ...this.#parts, linears: { ...this.#parts.linears, ...linears } });
  }

  /** Bytes that the linear layers take in memory, and all weights. */
  get bytes(): { readonly linears: number; readonly total: number } {
    const { linears, attentionNorm, mlpNorm, headNorms } = this.#parts;
    const norms = [attentionNorm, mlpNorm, ...(headNorms ? [headNorms.queries, headNorms.keys] : [])];
    const sum = Object.values(linears).reduce((bytes, linear) => bytes + linear.bytes, 0);
    return { linears: sum, total: norms.reduce((bytes, norm) => bytes + norm.bytes, sum) };
  }

  /**
   * Adds the block to a plan: it reads and writes `rows.hidden`, and writes the rows' keys and values to the cache.
   *
   * @param texts Whose rows they are, one text after the other.
   */
  addTo(plan: Plan, rows: Rows, frame: Frame, texts: readonly TextRows[]): void {
    const { linears, attentionNorm, mlpNorm } = this.#parts;
    const { count, hidden } = rows;
    const { attentionIn, queries, keys, values, attended, mlpIn, gate, up, activated, change } = frame;
    attentionNorm.addTo(plan, hidden, count, attentionIn);
    addLinears(plan, [linears.q, linears.k, linears.v], attentionIn, count, [queries, keys, values]);
    this.#addAttention(plan, rows, frame, texts);
    linears.o.addTo(plan, attended, count, change);
    accumulate(plan, change, hidden);
    mlpNorm.addTo(plan, hidden, count, mlpIn);
    addLinears(plan, [linears.gate, linears.up], mlpIn, count, [gate, up]);
    // An exponential costs as much as some sixteen multiply-adds.
    plan.add(16 * gate.length, (threads) => [{ operation: 'swiglu', args: { gate, up, out: activated, threads } }]);
    linears.down.addTo(plan, activated, count, change);
    accumulate(plan, change, hidden);
  }

  #addAttention(plan: Plan, { count, positions, rope }: Rows, frame: Frame, texts: readonly TextRows[]): void {
    const { heads, kvHeads, headDim, windows } = this.#config;
    const { queries, keys, values, attended } = frame;
    const { headNorms } = this.#parts;
    headNorms?.queries.addTo(plan, queries, count * heads, queries);
    headNorms?.keys.addTo(plan, keys, count * kvHeads, keys);
    turn(plan, queries, count, heads, headDim, rope);
    turn(plan, keys, count, kvHeads, headDim, rope);
    const scale = 1 / Math.sqrt(headDim);
    const shape = { heads, kvHeads, headDim, window: windows[this.#index]!, scale };
    let first = 0;
    for (const { rows, cache } of texts) {
      const [from, to] = [first, first + rows];
      const cut = <T extends Float32Array | Int32Array>(of: T) => part(of, from, to, count);
      const own = { positions: cut(positions), q: cut(queries), k: cut(keys), v: cut(values), out: cut(attended) };
      // How much work it is depends on the positions, which are not there yet: the operation itself finds out.
      plan.add(Infinity, (threads) => [
        { operation: 'attention', args: { ...shape, rows, ...own, ...cache, threads } },
      ]);
      first = to;
    }
  }

  /** What went into the linear layers when the block ran in this frame. */
  inputs(frame: Frame, rows: number): readonly LinearInput[] {
    return Object.values(BLOCK_LINEARS).map(({ module, input }) => ({
      module: `${blockName(this.#index)}.${module}`,
      rows,
      x: frame[input],
    }));
  }
}

/** Rows `[from, to)` of `count`. */
function part<T extends Float32Array | Int32Array>(rows: T, from: number, to: number, count: number): T {
  const width = rows.length / count;
  return rows.subarray(from * width, to * width) as T;
}

function turn(plan: Plan, x: Float32Array, rows: number, heads: number, headDim: number, { cos, sin }: RopeRows): void {
  plan.add(2 * x.length, (threads) => [{ operation: 'rope', args: { rows, heads, headDim, cos, sin, x, threads } }]);
}

function accumulate(plan: Plan, x: Float32Array, to: Float32Array): void {
  plan.add(x.length, (threads) => [{ operation: 'add', args: { x, to, threads } }]);
}
