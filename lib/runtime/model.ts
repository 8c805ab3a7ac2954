import type { Backend, Step } from '../../binding.js';
import { activeBackend } from '../backend/index.js';
import { allocating } from '../compute/run.js';
import { HqqError, show } from '../messages/errors.js';
import { prepareBetween } from './blocks/between.js';
import type { Block } from './blocks/block.js';
import { KvCache } from './blocks/cache.js';
import { Plan } from './blocks/plan.js';
import { Rope } from './blocks/rope.js';
import type { Workspace } from './blocks/workspace.js';
import type { LanguageModelConfig } from './config/model-config.js';
import { breathe } from './event-loop.js';
import { type GeneratedToken, type GenerateOptions, generateTokens, resolveGenerateOptions } from './text/generate.js';
import type { TextTokenizer } from './text/tokens.js';
import type { ModelWeights } from './weights/read.js';

/** Positions that one job computes: a longer prompt is several, so that others get their turn and buffers stay small. */
const CHUNK = 256;

/** Rows whose logits are in memory at once while perplexity is measured: a vocabulary may have 150,000 tokens. */
const LOGIT_ROWS = 16;

/** Token ids. */
export type TokenIds = readonly number[] | Int32Array | Uint32Array;

/** How `forward` runs. */
export interface ForwardOptions {
  /**
   * `'last'`: the logits of the last position, `[vocabSize]`. `'all'`: of every one, `[ids.length, vocabSize]`.
   *
   * @default 'last'
   */
  readonly logits?: 'last' | 'all';
  /** Aborts the call: it rejects with the signal's reason, and the cache is as it was. */
  readonly signal?: AbortSignal | undefined;
}

/** How `perplexity` runs. */
export interface PerplexityOptions {
  /** Tokens of a window, 1 to `maxContext`. @default 128 */
  readonly window?: number | undefined;
  /** Aborts the call: it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called after every window with the tokens that are predicted, and all. An error that it throws ends the measurement. */
  readonly onProgress?: ((progress: { readonly tokensDone: number; readonly tokensTotal: number }) => void) | undefined;
}

/** What `perplexity` measures. */
export interface Perplexity {
  /** `exp(nll)` */
  readonly perplexity: number;
  /** Mean negative log likelihood of a token, in nats. */
  readonly nll: number;
  /** Tokens that were predicted. */
  readonly tokens: number;
}

/** What a model is made of; `loadLanguageModel` puts it together. */
export interface ModelParts {
  readonly config: LanguageModelConfig;
  readonly weights: ModelWeights;
  readonly tokenizer: () => Promise<TextTokenizer>;
  readonly endIds: readonly number[];
  readonly threads: number;
  readonly maxContext: number;
  /** Default: the one that the package computes with. */
  readonly backend?: Backend;
}

/** A decoder-only language model in memory. Any number of texts may be generated at once; they take turns token by token. */
export class LanguageModel {
  /** What config.json says. */
  readonly config: LanguageModelConfig;
  /** Most positions of a text. */
  readonly maxContext: number;
  /** Blocks in their order, for those who run them one by one. */
  readonly blocks: readonly Block[];
  readonly #weights: ModelWeights;
  readonly #parts: ModelParts;
  readonly #backend: Backend;
  readonly #rope: Rope;
  /** What is done between attentions in the workspace of a text. The model's, since it holds weights: a cache keeps none alive. */
  readonly #between = new WeakMap<Workspace, readonly Step[]>();
  #tokenizer: Promise<TextTokenizer> | undefined;
  #closed = false;

  /** @internal Use `loadLanguageModel`. */
  constructor(parts: ModelParts) {
    this.config = parts.config;
    this.maxContext = parts.maxContext;
    this.blocks = parts.weights.blocks;
    this.#weights = parts.weights;
    this.#parts = parts;
    this.#backend = parts.backend ?? activeBackend();
    this.#rope = new Rope(parts.config.rope);
  }

  /** Bytes that the weights take in memory: all of them, and those of the linear layers in the blocks alone. */
  get memoryUsage(): {
    /** All weights. */
    readonly total: number;
    /** Linear layers of the blocks. */
    readonly linears: number;
  } {
    const { embedding, head } = this.#weights;
    const linears = this.blocks
      .flatMap(({ linears: layers }) => Object.values(layers))
      .reduce((sum, { bytes }) => sum + bytes, 0);
    return { total: linears + embedding.byteLength + (this.config.tied ? 0 : head.bytes), linears };
  }

  /** The model's tokenizer. @throws {HqqError} `ERR_DEPENDENCY`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT` */
  tokenizer(): Promise<TextTokenizer> {
    this.#tokenizer ??= this.#parts.tokenizer();
    return this.#tokenizer;
  }

  /** What a new text begins with. */
  createCache(): KvCache {
    this.#checkOpen();
    return new KvCache(this.config, this.maxContext);
  }

  /**
   * Reads `ids` after what `cache` holds, and gives logits: for each token of the vocabulary, how likely it comes next, as a
   * logarithm up to a constant. With `logits: 'last'` the array is the cache's own and stays as it is until the next call on it.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for ids that are none, or more than `maxContext` positions.
   */
  async forward(
    ids: TokenIds,
    cache: KvCache,
    { logits = 'last', signal }: ForwardOptions = {},
  ): Promise<Float32Array> {
    this.#checkIds(ids);
    if (logits !== 'last' && logits !== 'all') {
      throw new HqqError('ERR_INVALID_OPTION', `Expected logits to be one of last, all, got ${show(logits)}.`);
    }
    const { vocabSize } = this.config;
    const all = logits === 'all' ? allocating('the logits', () => new Float32Array(ids.length * vocabSize)) : undefined;
    return cache.extend(ids.length, async (start) => {
      for (let at = 0; ; at += CHUNK) {
        const end = Math.min(at + CHUNK, ids.length);
        const { plan, space } = this.#planBlocks(ids.slice(at, end), cache, start + at, start + ids.length);
        if (all) this.#planHead(plan, space, 0, space.rows, all.subarray(at * vocabSize, end * vocabSize));
        const last = end === ids.length;
        const out = all ?? cache.logits;
        if (last && !all) this.#planHead(plan, space, space.rows - 1, space.rows, out);
        await plan.run(this.#backend, { signal });
        if (last) return out;
      }
    });
  }

  /**
   * Perplexity of a text: it is cut into windows of `window` tokens, each read without what came before it, and each token
   * predicted from those before it in its window. The rest at the end is dropped.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a text that is shorter than a window and one token more.
   */
  async perplexity(ids: TokenIds, { window = 128, signal, onProgress }: PerplexityOptions = {}): Promise<Perplexity> {
    this.#checkIds(ids);
    if (!Number.isSafeInteger(window) || window < 1 || window > this.maxContext) {
      throw new HqqError(
        'ERR_INVALID_OPTION',
        `Expected window to be an integer in [1, ${this.maxContext}], got ${show(window)}. maxContext (--max-context) sets the limit.`,
      );
    }
    const windows = Math.floor((ids.length - 1) / window);
    if (windows === 0) {
      throw new HqqError(
        'ERR_INVALID_ARGUMENT',
        `Expected at least ${window + 1} tokens for a window of ${window}, got ${ids.length}. Give a longer text or a smaller window.`,
      );
    }
    const cache = this.createCache();
    const tokens = windows * window;
    let sum = 0;
    for (let w = 0; w < windows; w++) {
      cache.truncate(0);
      sum += await this.#surprise(ids.slice(w * window, (w + 1) * window + 1), cache, signal);
      onProgress?.({ tokensDone: (w + 1) * window, tokensTotal: tokens });
    }
    return { perplexity: Math.exp(sum / tokens), nll: sum / tokens, tokens };
  }

  /**
   * Goes on with a text, token by token. Stops at the model's end token, at a `stop` text, after `maxTokens`, at `maxContext`, or
   * when the caller stops asking.
   *
   * @example for await (const { text } of model.generate('Once upon a time', { maxTokens: 50 })) process.stdout.write(text);
   * @throws {HqqError} `ERR_INVALID_OPTION`, before anything runs.
   */
  generate(prompt: string | TokenIds, options: GenerateOptions = {}): AsyncGenerator<GeneratedToken, void, undefined> {
    this.#checkOpen();
    return generateTokens(this, this.#parts.endIds, prompt, resolveGenerateOptions(options));
  }

  /** Lets go of the weights: calls from now on are errors. Those under way end as they would. */
  async close(): Promise<void> {
    this.#closed = true;
  }

  /** Sum of the negative log likelihoods of all tokens but the first. */
  async #surprise(ids: TokenIds, cache: KvCache, signal: AbortSignal | undefined): Promise<number> {
    const { vocabSize } = this.config;
    const count = ids.length - 1;
    return cache.extend(count, async (start) => {
      let sum = 0;
      for (let at = 0; at < count; at += CHUNK) {
        const rows = Math.min(CHUNK, count - at);
        const { plan, space } = this.#planBlocks(ids.slice(at, at + rows), cache, start + at, start + count);
        await plan.run(this.#backend, { signal });
        for (let row = 0; row < rows; row += LOGIT_ROWS) {
          const end = Math.min(rows, row + LOGIT_ROWS);
          const logits = new Float32Array((end - row) * vocabSize);
          const heads = new Plan(this.#parts.threads);
          this.#planHead(heads, space, row, end, logits);
          await heads.run(this.#backend, { signal });
          for (let r = row; r < end; r++) {
            const of = logits.subarray((r - row) * vocabSize, (r - row + 1) * vocabSize);
            sum += logSumExp(of) - of[ids[at + r + 1]!]!;
            await breathe();
          }
        }
      }
      return sum;
    });
  }

  /** The embedding of `ids`, and all blocks. `length`: positions of the text when all that is read together has been. */
  #planBlocks(ids: TokenIds, cache: KvCache, start: number, length: number): { plan: Plan; space: Workspace } {
    this.#checkOpen();
    const { hiddenSize } = this.config;
    const { threads } = this.#parts;
    const plan = new Plan(threads);
    const space = cache.workspace(ids.length);
    for (let r = 0; r < ids.length; r++) {
      space.hidden.set(
        this.#weights.embedding.subarray(ids[r]! * hiddenSize, (ids[r]! + 1) * hiddenSize),
        r * hiddenSize,
      );
    }
    const rope = this.#rope.rows(start, ids.length, length);
    if (ids.length > 1) {
      for (const block of this.blocks) block.addTo(plan, { space, cache, start, rope });
      return { plan, space };
    }
    let between = this.#between.get(space);
    if (!between) this.#between.set(space, (between = prepareBetween(this.#backend, this.blocks, space, threads)));
    for (const [i, block] of this.blocks.entries()) {
      plan.addSteps([between[i]!]);
      block.addAttention(plan, { space, cache, start, rope });
    }
    plan.addSteps([between[this.blocks.length]!]);
    return { plan, space };
  }

  /** The last norm and the head, for rows `[from, to)`. */
  #planHead(plan: Plan, space: Workspace, from: number, to: number, out: Float32Array): void {
    const { hiddenSize } = this.config;
    const cut = (array: Float32Array) => array.subarray(from * hiddenSize, to * hiddenSize);
    this.#weights.norm.addTo(plan, cut(space.hidden), to - from, cut(space.change));
    this.#weights.head.addTo(plan, cut(space.change), to - from, out);
  }

  #checkIds(ids: TokenIds): void {
    const { vocabSize } = this.config;
    const isList = Array.isArray(ids) || ids instanceof Int32Array || ids instanceof Uint32Array;
    if (!isList || ids.length === 0)
      throw new HqqError('ERR_INVALID_ARGUMENT', `Expected ids to be a list of token ids, got ${show(ids)}.`);
    for (const id of ids) {
      if (Number.isSafeInteger(id) && id >= 0 && id < vocabSize) continue;
      throw new HqqError(
        'ERR_INVALID_ARGUMENT',
        `Expected every token id to be an integer in [0, ${vocabSize - 1}], got ${show(id)}.`,
      );
    }
  }

  #checkOpen(): void {
    if (this.#closed)
      throw new HqqError('ERR_INVALID_ARGUMENT', 'Expected the model to be open, got a call after close.');
  }
}

function logSumExp(logits: Float32Array): number {
  let highest = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i]! > highest) highest = logits[i]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - highest);
  return highest + Math.log(sum);
}
