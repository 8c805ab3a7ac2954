import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { allocating } from '../messages/allocating.js';
import { type CacheDtype, KvCache } from './blocks/cache.js';
import { Frame } from './blocks/frame.js';
import { Lora } from './blocks/lora.js';
import { Plan } from './blocks/plan.js';
import { Rope } from './blocks/rope.js';
import { makeRows } from './blocks/rows.js';
import { Scratch } from './blocks/scratch.js';
import type { LanguageModelConfig } from './config/model-config.js';
import { beginPass, type Machine, type Part, Pass, type PassContext, type ReadRun, type TokensPass } from './pass.js';
import type { TokenIds } from './text/ids.js';
import type { ModelWeights } from './weights/read.js';

/** Positions that go through the blocks at once: a longer prompt is several passes, so that others get their turn. */
export const CHUNK = 256;

/** Bytes that frames may take while a tap watches, when each block has its own. */
const TAPPED_BYTES = 256 * 1024 * 1024;

/** The weights of a model at work: from token ids to logits. */
export class Decoder {
  readonly config: LanguageModelConfig;
  readonly weights: ModelWeights;
  readonly machine: Machine;
  readonly #cacheDtype: CacheDtype;
  readonly #ropes: readonly Rope[];
  readonly #context: PassContext;
  /** Undefined while a pass has it. */
  #scratch: Scratch | undefined = new Scratch();

  /** @param cacheDtype What texts' keys and values are kept as. */
  constructor(
    config: LanguageModelConfig,
    weights: ModelWeights,
    machine: Machine,
    cacheDtype: CacheDtype = 'float32',
  ) {
    this.#cacheDtype = cacheDtype;
    this.config = config;
    this.weights = weights;
    this.machine = machine;
    this.#ropes = config.ropes.map((rope) => new Rope(rope));
    const embed = (ids: TokenIds, hidden: Float32Array) => weights.embedding.read(ids, hidden);
    this.#context = { config, weights, machine, ropes: this.#ropes, embed };
  }

  /** An empty cache of `maxPositions` at most. */
  createCache(maxPositions: number): KvCache {
    return new KvCache(this.config, maxPositions, this.#cacheDtype);
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
      // Reading hundreds of arguments anew for each token would take a millisecond.
      const pass = cache.prepared(this, () => this.prepareTokens([cache]));
      const logits = await pass.run(ids, [start], run);
      all?.set(logits);
      return all ?? logits;
    }
    const { vocabSize } = this.config;
    const tapped = run.tap !== undefined;
    for (const [at, end] of this.chunks(ids.length, tapped)) {
      const part = { ids: ids.slice(at, end), cache, start: start + at, length: start + ids.length };
      const last = end === ids.length;
      await this.#run([part], run, tapped, (pass) => {
        if (all) pass.addHead(0, end - at, all.subarray(at * vocabSize, end * vocabSize));
        else if (last) pass.addHead(end - at - 1, end - at, cache.logits);
      });
    }
    return all ?? cache.logits;
  }

  /** Begin and end of each pass over `count` positions: fewer at a time where frames are not shared. */
  *chunks(count: number, tapped = false): Generator<readonly [begin: number, end: number]> {
    const bytes = this.config.layers * Frame.bytesPerRow(this.config);
    const most = tapped ? Math.min(CHUNK, Math.max(1, Math.floor(TAPPED_BYTES / bytes))) : CHUNK;
    for (let at = 0; at < count; at += most) yield [at, Math.min(at + most, count)];
  }

  /** The way of some positions through all blocks, to be run. */
  pass(parts: readonly Part[]): Pass {
    return new Pass(this.#context, parts);
  }

  /** Runs a pass that nobody asks for anything afterwards. */
  async #run(parts: readonly Part[], run: ReadRun, tapped: boolean, addHeads: (pass: Pass) => void): Promise<void> {
    if (tapped) {
      const pass = new Pass(this.#context, parts, true); // a tap may keep what it is shown
      addHeads(pass);
      return pass.run(run);
    }
    const scratch = this.#scratch ?? new Scratch();
    this.#scratch = undefined;
    try {
      beginPass(
        scratch,
        this.config,
        parts.reduce((sum, { ids }) => sum + ids.length, 0),
      );
      const pass = new Pass(this.#context, parts, false, scratch);
      addHeads(pass);
      await pass.run(run);
    } finally {
      this.#scratch = scratch;
    }
  }

  /**
   * Reads parts of several texts, into caches that have room for them: the weights come from memory once for all. Gives the logits of
   * the last position of each of the first `told` parts, `[told, vocabSize]`.
   */
  async readParts(parts: readonly Part[], told: number, run: Pick<ReadRun, 'signal'>): Promise<OwnedFloat32Array> {
    const logits = allocating('the logits', () => new Float32Array(told * this.config.vocabSize));
    let end = 0;
    const last = parts.map(({ ids }) => (end += ids.length) - 1);
    await this.#run(parts, run, false, (pass) => {
      if (told > 0) pass.addHeads(last.slice(0, told), logits);
    });
    return logits;
  }

  /** Prepares the reading of one more token of each of several texts, again and again. */
  prepareTokens(caches: readonly KvCache[]): TokensPass {
    const { config, weights, machine } = this;
    const count = caches.length;
    const rows = makeRows(config, count);
    const frame = new Frame(config, count);
    const plan = new Plan(machine.threads);
    const lora = Lora.of(caches.map(({ adapters }) => ({ rows: 1, adapters })));
    for (const [layer, block] of weights.blocks.entries()) {
      const texts = caches.map((cache) => ({ rows: 1, cache: cache.layer(layer) }));
      block.addTo(plan, rows, frame, texts, lora);
    }
    // A text alone has its logits in its cache, which callers may hold on to.
    const logits =
      count === 1 ? caches[0]!.logits : allocating('the logits', () => new Float32Array(count * config.vocabSize));
    weights.head.addTo(plan, rows.hidden, count, frame.change, logits, lora);
    const prepared = plan.prepare(machine.backend);
    return {
      run: async (ids, starts, run) => {
        weights.embedding.read(ids, rows.hidden);
        rows.positions.set(starts);
        for (const [row, start] of starts.entries()) {
          for (const [i, rope] of this.#ropes.entries()) {
            const { cos, sin } = rope.rows(start, 1);
            rows.ropes[i]!.cos.set(cos, row * cos.length);
            rows.ropes[i]!.sin.set(sin, row * sin.length);
          }
        }
        await prepared.run(run);
        return logits;
      },
    };
  }
}
