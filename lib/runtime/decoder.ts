import type { Backend } from '../../binding.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { allocating } from '../messages/allocating.js';
import type { KvCache } from './blocks/cache.js';
import { Frame } from './blocks/frame.js';
import { Plan, type PreparedPlan } from './blocks/plan.js';
import { Rope } from './blocks/rope.js';
import { makeRows, positionsFrom, type Rows } from './blocks/rows.js';
import { type LinearInput, showInputs, type Tap } from './blocks/tap.js';
import type { LanguageModelConfig } from './config/model-config.js';
import type { TokenIds } from './text/ids.js';
import type { ModelWeights } from './weights/read.js';

/** Positions that go through the blocks at once: a longer prompt is several passes, so that others get their turn. */
export const CHUNK = 256;

/** Bytes that frames may take while a tap watches, when each block has its own. */
const TAPPED_BYTES = 256 * 1024 * 1024;

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

/** A single token: what is prepared once for a text, and filled for each of its tokens. */
interface TokenPass {
  readonly rows: Rows;
  readonly plan: PreparedPlan;
}

/** The weights of a model at work: from token ids to logits. */
export class Decoder {
  readonly config: LanguageModelConfig;
  readonly weights: ModelWeights;
  readonly machine: Machine;
  readonly #rope: Rope;

  constructor(config: LanguageModelConfig, weights: ModelWeights, machine: Machine) {
    this.config = config;
    this.weights = weights;
    this.machine = machine;
    this.#rope = new Rope(config.rope);
  }

  /**
   * Reads `ids` into a cache that has room for them from position `start` on. Gives the logits of the last one in the cache's own
   * array, or those of all in `all`, `[ids.length, vocabSize]`.
   */
  async read(
    ids: TokenIds,
    cache: KvCache,
    start: number,
    run: ReadRun,
    all?: OwnedFloat32Array,
  ): Promise<OwnedFloat32Array> {
    if (ids.length === 1 && run.tap === undefined) {
      const logits = await this.#readToken(ids[0]!, cache, start, run);
      all?.set(logits);
      return all ?? logits;
    }
    const { vocabSize } = this.config;
    for (const [at, end] of this.chunks(ids.length, run.tap !== undefined)) {
      const pass = this.pass(ids.slice(at, end), cache, start + at, start + ids.length, run.tap !== undefined);
      if (all) pass.addHead(0, end - at, all.subarray(at * vocabSize, end * vocabSize));
      else if (end === ids.length) pass.addHead(end - at - 1, end - at, cache.logits);
      await pass.run(run);
    }
    return all ?? cache.logits;
  }

  /** Begin and end of each pass over `count` positions: fewer at a time where frames are not shared. */
  *chunks(count: number, tapped = false): Generator<readonly [begin: number, end: number]> {
    const bytes = this.config.layers * Frame.bytesPerRow(this.config);
    const most = tapped ? Math.min(CHUNK, Math.max(1, Math.floor(TAPPED_BYTES / bytes))) : CHUNK;
    for (let at = 0; at < count; at += most) yield [at, Math.min(at + most, count)];
  }

  /**
   * The way of `ids` through all blocks, to be run. `length`: positions of the text when all that is read together has been.
   * `tapped`: what goes into the linear layers of each block is there afterwards.
   */
  pass(ids: TokenIds, cache: KvCache, start: number, length: number, tapped = false): Pass {
    const { config, weights } = this;
    const count = ids.length;
    const rows: Rows = {
      count,
      positions: positionsFrom(start, count),
      rope: this.#rope.rows(start, count, length),
      hidden: new Float32Array(count * config.hiddenSize),
    };
    this.#embed(ids, rows.hidden);
    const plan = new Plan(this.machine.threads);
    const shared = new Frame(config, count);
    const frames = weights.blocks.map((block, layer) => {
      const frame = tapped && layer > 0 ? new Frame(config, count) : shared;
      block.addTo(plan, rows, frame, [cache.layer(layer)]);
      return frame;
    });
    return new Pass(this, plan, rows, frames);
  }

  /**
   * Reads one more token of each of several texts, into caches that have room for it at `starts`: the weights come from memory once
   * for all of them. Gives the logits of each, `[ids.length, vocabSize]`.
   */
  async readEach(
    ids: readonly number[],
    caches: readonly KvCache[],
    starts: readonly number[],
    { signal }: Pick<ReadRun, 'signal'>,
  ): Promise<OwnedFloat32Array> {
    const { config, weights, machine } = this;
    const count = ids.length;
    const rows = makeRows(config, count);
    this.#embed(ids, rows.hidden);
    rows.positions.set(starts);
    for (const [row, start] of starts.entries()) {
      const { cos, sin } = this.#rope.rows(start, 1);
      rows.rope.cos.set(cos, row * cos.length);
      rows.rope.sin.set(sin, row * sin.length);
    }
    const plan = new Plan(machine.threads);
    const frame = new Frame(config, count);
    for (const [layer, block] of weights.blocks.entries()) {
      block.addTo(
        plan,
        rows,
        frame,
        caches.map((cache) => cache.layer(layer)),
      );
    }
    const logits = allocating('the logits', () => new Float32Array(count * config.vocabSize));
    weights.head.addTo(plan, rows.hidden, count, frame.change, logits);
    await plan.run(machine.backend, { signal });
    return logits;
  }

  async #readToken(id: number, cache: KvCache, start: number, run: ReadRun): Promise<OwnedFloat32Array> {
    const { rows, plan } = cache.prepared(this, () => this.#prepareToken(cache));
    const { cos, sin } = this.#rope.rows(start, 1);
    this.#embed([id], rows.hidden);
    rows.positions[0] = start;
    rows.rope.cos.set(cos);
    rows.rope.sin.set(sin);
    await plan.run(run);
    return cache.logits;
  }

  /** One token is one sequence: blocks and head. Reading its hundreds of arguments anew each time would take a millisecond. */
  #prepareToken(cache: KvCache): TokenPass {
    const { config, weights, machine } = this;
    const rows = makeRows(config, 1);
    const frame = new Frame(config, 1);
    const plan = new Plan(machine.threads);
    weights.blocks.forEach((block, layer) => block.addTo(plan, rows, frame, [cache.layer(layer)]));
    weights.head.addTo(plan, rows.hidden, 1, frame.change, cache.logits);
    return { rows, plan: plan.prepare(machine.backend) };
  }

  #embed(ids: TokenIds, hidden: Float32Array): void {
    const { hiddenSize } = this.config;
    for (let row = 0; row < ids.length; row++) {
      const from = ids[row]! * hiddenSize;
      hidden.set(this.weights.embedding.subarray(from, from + hiddenSize), row * hiddenSize);
    }
  }
}

/** Positions of a text on their way through all blocks. */
class Pass {
  /** Positions. */
  readonly count: number;
  readonly #decoder: Decoder;
  readonly #plan: Plan;
  readonly #rows: Rows;
  readonly #frames: readonly Frame[];
  readonly #headInputs: LinearInput[] = [];

  constructor(decoder: Decoder, plan: Plan, rows: Rows, frames: readonly Frame[]) {
    this.count = rows.count;
    this.#decoder = decoder;
    this.#plan = plan;
    this.#rows = rows;
    this.#frames = frames;
  }

  /** Lets logits of rows `[from, to)` be written to `out` at the end of the run. */
  addHead(from: number, to: number, out: Float32Array): void {
    this.#headInputs.push(this.#planHead(this.#plan, from, to, out));
  }

  /** Runs it. A tap is shown the inputs of the linear layers afterwards. */
  async run({ signal, tap }: ReadRun): Promise<void> {
    const { weights, machine } = this.#decoder;
    await this.#plan.run(machine.backend, { signal });
    if (!tap) return;
    for (const [layer, block] of weights.blocks.entries())
      await showInputs(tap, block.inputs(this.#frames[layer]!, this.count));
    await showInputs(tap, this.#headInputs);
  }

  /** Logits of rows `[from, to)` of a pass that has run. */
  async logits(from: number, to: number, { signal }: ReadRun): Promise<Float32Array> {
    const { config, machine } = this.#decoder;
    const out = new Float32Array((to - from) * config.vocabSize);
    const plan = new Plan(machine.threads);
    this.#planHead(plan, from, to, out);
    await plan.run(machine.backend, { signal });
    return out;
  }

  #planHead(plan: Plan, from: number, to: number, out: Float32Array): LinearInput {
    const { config, weights } = this.#decoder;
    const cut = (array: Float32Array) => array.subarray(from * config.hiddenSize, to * config.hiddenSize);
    const normed = cut(this.#frames.at(-1)!.change);
    weights.head.addTo(plan, cut(this.#rows.hidden), to - from, normed, out);
    return weights.head.input(normed, to - from);
  }
}
