import type { Backend } from '../../binding.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import type { KvCache } from './blocks/cache.js';
import { Frame } from './blocks/frame.js';
import { Lora } from './blocks/lora.js';
import { Plan } from './blocks/plan.js';
import type { Rope, RopeRows } from './blocks/rope.js';
import { positionsFrom, type Rows } from './blocks/rows.js';
import { type Floats, NEW_FLOATS, type Scratch } from './blocks/scratch.js';
import { type LinearInput, showInputs, type Tap } from './blocks/tap.js';
import type { LanguageModelConfig } from './config/model-config.js';
import type { TokenIds } from './text/ids.js';
import type { ModelWeights } from './weights/read.js';

/** What computes, and on how many threads. */
export interface Machine {
  readonly backend: Backend;
  readonly threads: number;
}

/** How positions are read. */
export interface ReadRun {
  readonly signal?: AbortSignal | undefined;
  readonly tap?: Tap | undefined;
}

/** One more token of each of several texts: prepared once, and run for token after token. */
export interface TokensPass {
  /**
   * Reads a token of each text, at its position. Gives the logits of each, `[texts, vocabSize]`, in an array that the next run writes
   * to. While one runs, no other may.
   */
  run(ids: TokenIds, starts: readonly number[], run: Pick<ReadRun, 'signal'>): Promise<OwnedFloat32Array>;
}

/** Some positions of a text, that go through the blocks together, and with those of others. */
export interface Part {
  readonly ids: TokenIds;
  /** It has room for them. */
  readonly cache: KvCache;
  /** Position of the first. */
  readonly start: number;
  /** Positions of the text when all that is read in one call has been: `dynamic` rotary scaling depends on it. */
  readonly length: number;
}

/** What passes share. */
export interface PassContext {
  readonly config: LanguageModelConfig;
  readonly weights: ModelWeights;
  readonly machine: Machine;
  readonly ropes: readonly Rope[];
  /** Writes the rows that belong to `ids`. */
  embed(ids: TokenIds, hidden: Float32Array): void;
}

/** Arrays that a pass takes: of rows, frames, and what goes into the head. */
const PASS_ARRAYS = 32;

/** Makes room for a pass over `rows` positions. */
export function beginPass(scratch: Scratch, config: LanguageModelConfig, rows: number): void {
  const perRow = Frame.bytesPerRow(config) / Float32Array.BYTES_PER_ELEMENT + 2 * config.hiddenSize;
  scratch.begin(rows * perRow, PASS_ARRAYS);
}

/** Positions of one or several texts on their way through all blocks. */
export class Pass {
  /** Positions. */
  readonly count: number;
  readonly #context: PassContext;
  readonly #plan: Plan;
  readonly #rows: Rows;
  readonly #frames: readonly Frame[];
  readonly #lora: Lora | undefined;
  readonly #headInputs: LinearInput[] = [];

  readonly #memory: Floats;

  /**
   * @param tapped What goes into the linear layers of each block is there afterwards.
   * @param memory Where activations lie.
   */
  constructor(context: PassContext, parts: readonly Part[], tapped = false, memory: Floats = NEW_FLOATS) {
    const { config, weights, machine } = context;
    const rows = rowsOf(context, parts, memory);
    const plan = new Plan(machine.threads);
    const shared = new Frame(config, rows.count, false, memory);
    const lora = Lora.of(parts.map(({ ids, cache: { adapters } }) => ({ rows: ids.length, adapters })));
    const frames = weights.blocks.map((block, layer) => {
      const frame = tapped && layer > 0 ? new Frame(config, rows.count, false, memory) : shared;
      const texts = parts.map(({ ids, cache }) => ({ rows: ids.length, cache: cache.layer(layer) }));
      block.addTo(plan, rows, frame, texts, lora);
      return frame;
    });
    this.count = rows.count;
    this.#context = context;
    this.#plan = plan;
    this.#rows = rows;
    this.#frames = frames;
    this.#lora = lora;
    this.#memory = memory;
  }

  /** Lets logits of rows `[from, to)` be written to `out` at the end of the run. */
  addHead(from: number, to: number, out: Float32Array): void {
    this.#headInputs.push(this.#planHead(this.#plan, from, to, out));
  }

  /** Lets logits of some rows be written to `out`, `[rows, vocabSize]`, at the end of the run: the head is read once for all. */
  addHeads(rows: readonly number[], out: Float32Array): void {
    const { config, weights } = this.#context;
    const width = config.hiddenSize;
    const normed = this.#memory.take(rows.length * width);
    for (let at = 0; at < rows.length; ) {
      let end = at + 1;
      while (end < rows.length && rows[end] === rows[at]! + end - at) end++; // rows that lie side by side are one norm
      const from = rows[at]! * width;
      const hidden = this.#rows.hidden.subarray(from, from + (end - at) * width);
      weights.head.addNorm(this.#plan, hidden, end - at, normed.subarray(at * width, end * width));
      at = end;
    }
    weights.head.addLinear(this.#plan, normed, rows.length, out, this.#lora?.select(rows));
  }

  /** Runs it. A tap is shown the inputs of the linear layers afterwards. */
  async run({ signal, tap }: ReadRun): Promise<void> {
    const { weights, machine } = this.#context;
    await this.#plan.run(machine.backend, { signal });
    if (!tap) return;
    for (const [layer, block] of weights.blocks.entries())
      await showInputs(tap, block.inputs(this.#frames[layer]!, this.count));
    await showInputs(tap, this.#headInputs);
  }

  /** Logits of rows `[from, to)` of a pass that has run. */
  async logits(from: number, to: number, { signal }: ReadRun): Promise<Float32Array> {
    const { config, machine } = this.#context;
    const out = new Float32Array((to - from) * config.vocabSize);
    const plan = new Plan(machine.threads);
    this.#planHead(plan, from, to, out);
    await plan.run(machine.backend, { signal });
    return out;
  }

  #planHead(plan: Plan, from: number, to: number, out: Float32Array): LinearInput {
    const { config, weights } = this.#context;
    const cut = (array: Float32Array) => array.subarray(from * config.hiddenSize, to * config.hiddenSize);
    const normed = cut(this.#frames.at(-1)!.change);
    weights.head.addTo(plan, cut(this.#rows.hidden), to - from, normed, out, this.#lora?.slice(from, to));
    return weights.head.input(normed, to - from);
  }
}

/** The rows of all parts, one after the other. */
function rowsOf({ config, ropes, embed }: PassContext, parts: readonly Part[], memory: Floats): Rows {
  const { hiddenSize } = config;
  const count = parts.reduce((sum, { ids }) => sum + ids.length, 0);
  const hidden = memory.take(count * hiddenSize);
  const positions = new Int32Array(count);
  let row = 0;
  for (const { ids, start } of parts) {
    embed(ids, hidden.subarray(row * hiddenSize, (row + ids.length) * hiddenSize));
    positions.set(positionsFrom(start, ids.length), row);
    row += ids.length;
  }
  const angles = ropes.map((rope): RopeRows => {
    const each = parts.map(({ ids, start, length }) => rope.rows(start, ids.length, length));
    return each.length === 1 ? each[0]! : { cos: joined(each, 'cos'), sin: joined(each, 'sin') };
  });
  return { count, positions, ropes: angles, hidden };
}

function joined<K extends string>(arrays: readonly { readonly [_ in K]: Float32Array }[], name: K): Float32Array {
  const whole = new Float32Array(arrays.reduce((sum, { [name]: array }) => sum + array.length, 0));
  let at = 0;
  for (const { [name]: array } of arrays) {
    whole.set(array, at);
    at += array.length;
  }
  return whole;
}
