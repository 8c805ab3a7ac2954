import type { LanguageModelConfig } from '../config/model-config.js';
import type { LayerCache } from './cache.js';
import { addExperts, type ExpertLinears } from './experts.js';
import type { Frame } from './frame.js';
import { addColumns, addFused, addNamed, type Linear, type NamedLinear } from './linear.js';
import type { Lora } from './lora.js';
import { addMlp, type MlpLinears } from './mlp.js';
import type { RmsNorm } from './norm.js';
import type { Plan } from './plan.js';
import type { RopeRows } from './rope.js';
import type { Rows } from './rows.js';
import { addScale } from './scale.js';
import type { LinearInput } from './tap.js';

/** Linear layers of a block. */
export interface BlockLinears {
  /** Queries, keys and values: three layers, or one that gives all. */
  readonly qkv: readonly NamedLinear[];
  /** From what was attended to back to the hidden size. */
  readonly o: NamedLinear;
  readonly mlp: MlpLinears | ExpertLinears;
}

/** Norms of a block; undefined: it has none there. */
export interface BlockNormParts {
  readonly beforeAttention?: RmsNorm | undefined;
  readonly afterAttention?: RmsNorm | undefined;
  readonly beforeMlp?: RmsNorm | undefined;
  readonly afterMlp?: RmsNorm | undefined;
  /** Of queries before they are turned, head by head or all heads together. */
  readonly queries?: RmsNorm | undefined;
  readonly keys?: RmsNorm | undefined;
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

/** One decoder block: attention and a gated MLP, each with its norms, and added to what comes in. */
export class Block {
  readonly #config: LanguageModelConfig;
  readonly #index: number;
  readonly #linears: BlockLinears;
  readonly #norms: BlockNormParts;

  constructor(config: LanguageModelConfig, index: number, linears: BlockLinears, norms: BlockNormParts) {
    this.#config = config;
    this.#index = index;
    this.#linears = linears;
    this.#norms = norms;
  }

  /** Its linear layers, in the order in which they are computed. */
  get linears(): readonly NamedLinear[] {
    const { qkv, o, mlp } = this.#linears;
    const ofMlp = ({ gateUp, down }: MlpLinears) => [...gateUp, down];
    return [...qkv, o, ...('router' in mlp ? [mlp.router, ...mlp.experts.flatMap(ofMlp)] : ofMlp(mlp))];
  }

  /** The same block, but for some of its linear layers, by module. */
  with(linears: ReadonlyMap<string, Linear>): Block {
    const { qkv, o, mlp } = this.#linears;
    const one = ({ module, linear }: NamedLinear) => ({ module, linear: linears.get(module) ?? linear });
    const ofMlp = ({ gateUp, down }: MlpLinears) => ({ gateUp: gateUp.map(one), down: one(down) });
    const replaced = 'router' in mlp ? { router: one(mlp.router), experts: mlp.experts.map(ofMlp) } : ofMlp(mlp);
    return new Block(this.#config, this.#index, { qkv: qkv.map(one), o: one(o), mlp: replaced }, this.#norms);
  }

  /** Bytes that the linear layers take in memory, and all weights. */
  get bytes(): { readonly linears: number; readonly total: number } {
    const norms = Object.values(this.#norms) as readonly (RmsNorm | undefined)[];
    const linears = this.linears.reduce((bytes, { linear }) => bytes + linear.bytes, 0);
    return { linears, total: norms.reduce((bytes, norm) => bytes + (norm?.bytes ?? 0), linears) };
  }

  /**
   * Adds the block to a plan: it reads and writes `rows.hidden`, and writes the rows' keys and values to the cache.
   *
   * @param texts Whose rows they are, one text after the other.
   * @param lora Adapters of the rows, where some have any.
   */
  addTo(plan: Plan, rows: Rows, frame: Frame, texts: readonly TextRows[], lora?: Lora): void {
    const { count, hidden } = rows;
    const { qkv, o, mlp } = this.#linears;
    const { beforeAttention, afterAttention, beforeMlp, afterMlp } = this.#norms;
    const { attentionIn, attention, attended, mlpIn, change } = frame;
    addNorm(plan, beforeAttention, hidden, count, attentionIn);
    addFused(plan, qkv, attentionIn, count, attention, lora);
    this.#addAttention(plan, rows, frame, texts);
    addNamed(plan, o, attended, count, change, lora);
    this.#accumulate(plan, afterAttention, change, rows);
    addNorm(plan, beforeMlp, hidden, count, mlpIn);
    if ('router' in mlp) addExperts(plan, mlp, this.#config, frame, count, lora);
    else {
      const own = { x: mlpIn, mlp: frame.mlp, activated: frame.activated, out: change };
      addMlp(plan, mlp, this.#config.activation, count, own, lora);
    }
    this.#accumulate(plan, afterMlp, change, rows);
  }

  #addAttention(plan: Plan, { count, positions, ropes }: Rows, frame: Frame, texts: readonly TextRows[]): void {
    const { heads, kvHeads, headDim, windows, ropeOf, headNorms, multipliers, softCaps } = this.#config;
    const [queries, keys] = frame.attention.parts as [Float32Array, Float32Array];
    const each = headNorms === 'each';
    this.#norms.queries?.addTo(plan, queries, count * (each ? heads : 1), queries);
    this.#norms.keys?.addTo(plan, keys, count * (each ? kvHeads : 1), keys);
    const which = ropeOf[this.#index];
    if (which !== undefined) {
      turn(plan, queries, count, heads, headDim, ropes[which]!);
      turn(plan, keys, count, kvHeads, headDim, ropes[which]!);
    }
    const [window, scale, softcap] = [windows[this.#index]!, multipliers.attention, softCaps.attention];
    const shape = { heads, kvHeads, headDim, window, scale, softcap };
    const views = frame.viewsOf(positions, texts);
    for (const [i, { rows, cache }] of texts.entries()) {
      // How much work it is depends on the positions, which are not there yet: the operation itself finds out.
      plan.add(Infinity, (threads) => [
        { operation: 'attention', args: { ...shape, rows, ...views[i]!, ...cache, threads } },
      ]);
    }
  }

  /** Adds what attention or the MLP gave to what they were given. */
  #accumulate(plan: Plan, norm: RmsNorm | undefined, x: Float32Array, { count, hidden: to }: Rows): void {
    norm?.addTo(plan, x, count, x);
    addScale(plan, x, this.#config.multipliers.residual, 0);
    plan.add(x.length, (threads) => [{ operation: 'add', args: { x, to, threads } }]);
  }

  /** What went into the linear layers when the block ran in this frame. */
  inputs({ attentionIn, attended, mlpIn, activated, experts }: Frame, rows: number): readonly LinearInput[] {
    const { qkv, o, mlp } = this.#linears;
    const input = (x: Float32Array) => (layer: NamedLinear) => ({ module: layer.module, rows, x });
    const attention = [...qkv.map(input(attentionIn)), input(attended)(o)];
    if ('router' in mlp) return [...attention, input(mlpIn)(mlp.router), ...experts!.inputs];
    return [...attention, ...mlp.gateUp.map(input(mlpIn)), input(activated)(mlp.down)];
  }
}

function turn(plan: Plan, x: Float32Array, rows: number, heads: number, headDim: number, { cos, sin }: RopeRows): void {
  const turned = (2 * cos.length) / rows;
  plan.add(2 * x.length, (threads) => [
    { operation: 'rope', args: { rows, heads, headDim, turned, cos, sin, x, threads } },
  ]);
}

/** Without a norm `x` is copied: what is in its place goes on, and a tap is to see what went in. */
function addNorm(plan: Plan, norm: RmsNorm | undefined, x: Float32Array, rows: number, out: Float32Array): void {
  const width = x.length / rows;
  if (norm) norm.addTo(plan, x, rows, out);
  else addColumns(plan, { x, rows, width, from: 0, cols: width, out });
}
