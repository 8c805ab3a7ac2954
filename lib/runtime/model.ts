import type { Backend } from '../../binding.js';
import { activeBackend } from '../backend/index.js';
import { checkSignal } from '../compute/signal.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { allocating } from '../messages/allocating.js';
import { HqqError, show } from '../messages/errors.js';
import { Closing, INSPECT, notCloneable } from '../messages/objects.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { refuseSurplus } from '../messages/surplus.js';
import { formatBytes, formatCount, plural } from '../messages/units.js';
import { type AdapterChoice, chooseAdapters } from './adapters.js';
import { Batcher } from './batch/batcher.js';
import { Prefixes } from './batch/prefixes.js';
import { type CacheDtype, checkCache, type KvCache } from './blocks/cache.js';
import type { Adapters } from './blocks/lora.js';
import type { LanguageModelConfig } from './config/model-config.js';
import { dependsOnLength } from './config/rope-config.js';
import { Decoder } from './decoder.js';
import type { ForwardOptions, Stoppable } from './forward-options.js';
import { Lifetime } from './lifetime.js';
import { ModelTexts } from './model-texts.js';
import { measurePerplexity, type Perplexity, type PerplexityOptions } from './perplexity.js';
import {
  type ChatMessage,
  type ChatOptions,
  type ChatPromptOptions,
  type ChatTemplate,
  checkChatOptions,
  checkMessages,
  checkPromptOptions,
} from './text/chat-template.js';
import { type GeneratedToken, generateTokens } from './text/generate.js';
import { type GenerateOptions, resolveGenerateOptions } from './text/generate-options.js';
import { checkIds, checkPrompt, type TokenIds } from './text/ids.js';
import type { ChatTokenizer, TextTokenizer } from './text/tokenizer.js';
import { type ToolForm, toolFormOf } from './text/tool-calls.js';
import { type ModelWeights, memoryOf } from './weights/read.js';

/** What a model is made of; `loadLanguageModel` puts it together. */
interface ModelParts {
  readonly config: LanguageModelConfig;
  readonly weights: ModelWeights;
  /** Beside the weights. */
  readonly adapters?: Adapters;
  readonly tokenizer: () => Promise<ChatTokenizer>;
  readonly chatTemplate: () => Promise<ChatTemplate>;
  readonly endIds: readonly number[];
  readonly threads: number;
  readonly maxContext: number;
  readonly maxBatch: number;
  /** Bytes that caches of texts that have ended may take. */
  readonly prefixBytes: number;
  /** What keys and values are kept as. */
  readonly cacheDtype: CacheDtype;
  /** Default: the one that the package computes with. */
  readonly backend?: Backend;
}

const NOT_CLONEABLE = notCloneable('A LanguageModel, which stays in its thread: post its path, and load it there,');

/** A decoder-only language model in memory. Any number of texts may be generated at once: they share the steps of decoding. */
export class LanguageModel extends Closing {
  /** What config.json says. */
  readonly config: LanguageModelConfig;
  /** Most positions of a text. */
  readonly maxContext: number;
  /** Names of the adapters that texts may have, in the order in which they were loaded. */
  readonly adapters: readonly string[];
  /** Bytes that the weights take in memory: all of them, and those of the linear layers in the blocks, and of adapters, alone. */
  readonly memoryUsage: {
    /** All weights. */
    readonly total: number;
    /** Linear layers of the blocks. */
    readonly linears: number;
    /** Adapters beside them. */
    readonly adapters: number;
  };
  /** @internal */
  readonly notCloneable = NOT_CLONEABLE;
  readonly #parts: Omit<ModelParts, 'weights'>;
  readonly #lifetime = new Lifetime('the model');
  /** Undefined once the model is closed and nothing computes. */
  #decoder: Decoder | undefined;
  #batcher: Batcher | undefined;
  #prefixes: Prefixes | undefined;
  readonly #texts: ModelTexts;

  /** @internal Use `loadLanguageModel`. */
  constructor({ weights, ...parts }: ModelParts) {
    super();
    const { config, maxContext, maxBatch, prefixBytes, cacheDtype, threads, backend = activeBackend() } = parts;
    this.config = config;
    this.maxContext = maxContext;
    const { adapters = [] } = parts;
    this.adapters = Object.freeze(adapters.map(({ name }) => name));
    this.memoryUsage = memoryOf(weights, config, adapters);
    this.#parts = parts;
    this.#texts = new ModelTexts(parts);
    const decoder = new Decoder(config, weights, { backend, threads }, cacheDtype);
    this.#decoder = decoder;
    this.#batcher = new Batcher(decoder, maxBatch);
    // What was read of a shorter text is not what a longer one begins with where angles depend on the length.
    const kept = dependsOnLength(config, maxContext) ? 0 : prefixBytes;
    this.#prefixes = new Prefixes(kept, () => decoder.createCache(maxContext));
  }

  /** Tokens that end what it writes. @internal */
  get endIds(): readonly number[] {
    return this.#parts.endIds;
  }

  /** The model's tokenizer, which `close` ends, too. @throws {HqqError} `ERR_CLOSED`, `ERR_DEPENDENCY`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT` */
  async tokenizer(): Promise<TextTokenizer> {
    refuseSurplus(arguments.length, 0, 'model.tokenizer()');
    return this.#lifetime.run(() => this.#texts.tokenizer());
  }

  /** What a new text begins with. @throws {HqqError} `ERR_CLOSED` */
  createCache(): KvCache {
    refuseSurplus(arguments.length, 0, 'model.createCache()');
    this.#lifetime.checkOpen();
    return this.#decoder!.createCache(this.maxContext);
  }

  /**
   * Reads `ids` after what `cache` holds, and gives logits: for each token of the vocabulary, how likely it comes next, as a
   * logarithm up to a constant. With `logits: 'last'` the array is the cache's own and stays as it is until the next call on it.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for ids that are none, more than `maxContext` positions, a cache that is none of this
   *   model's, or one read on the other side of where `longrope` changes; `ERR_INVALID_OPTION`, `ERR_CLOSED`
   */
  async forward(ids: TokenIds, cache: KvCache, options: ForwardOptions = {}): Promise<OwnedFloat32Array> {
    refuseSurplus(arguments.length, 3, 'model.forward(ids, cache, options)');
    return this.#lifetime.run(() => this.#forward(this.#decoder!, ids, cache, options));
  }

  /**
   * Reads one token after what each of several caches holds, together: the weights come from memory once for all. Gives the logits of
   * each text, in the order of the caches.
   *
   * @internal
   */
  async forwardEach(ids: readonly number[], caches: readonly KvCache[], run: Stoppable = {}): Promise<Float32Array[]> {
    return this.#lifetime.run(async () => {
      const extend = (starts: readonly number[]): Promise<Float32Array> => {
        const cache = caches[starts.length];
        if (cache !== undefined) return cache.extend(1, (start) => extend([...starts, start]));
        const parts = starts.map((start, i) => ({ ids: [ids[i]!], cache: caches[i]!, start, length: start + 1 }));
        return this.#decoder!.readParts(parts, parts.length, run);
      };
      const [logits, { vocabSize }] = [await extend([]), this.config];
      return ids.map((_, text) => logits.subarray(text * vocabSize, (text + 1) * vocabSize));
    });
  }

  /**
   * Perplexity of a text: it is cut into windows of `window` tokens, each read without what came before it, and each token
   * predicted from those before it in its window. A window of n scores n tokens and takes n + 1 ids: the first is only read, and is
   * the last that the window before scored. The rest at the end is dropped.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a text that is shorter than a window and one token more, or a window that is longer
   *   than `maxContext`; `ERR_INVALID_OPTION`, `ERR_CLOSED`
   */
  async perplexity(ids: TokenIds, options: PerplexityOptions = {}): Promise<Perplexity> {
    refuseSurplus(arguments.length, 2, 'model.perplexity(ids, options)');
    return this.#lifetime.run(() => {
      const choose = (adapter: PerplexityOptions['adapter']) => this.#choose(adapter);
      return measurePerplexity(this.#decoder!, this.maxContext, ids, options, choose);
    });
  }

  /**
   * Goes on with a text, token by token. Stops at the model's end token, at a `stop` text, after `maxTokens`, at `maxContext`, or
   * when the caller stops asking.
   *
   * @example for await (const { text } of model.generate('Once upon a time', { maxTokens: 50 })) process.stdout.write(text);
   * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_INVALID_OPTION`, `ERR_CLOSED`, before anything runs.
   */
  generate(prompt: string | TokenIds, options: GenerateOptions = {}): AsyncGenerator<GeneratedToken, void, undefined> {
    refuseSurplus(arguments.length, 2, 'model.generate(prompt, options)');
    this.#lifetime.checkOpen();
    checkPrompt(prompt, this.config.vocabSize);
    const resolved = resolveGenerateOptions(options);
    return this.#generate(() => prompt, resolved);
  }

  /**
   * Goes on with a conversation: the model's chat template makes a prompt of the messages, and what comes is the assistant's answer. The
   * next turn, with the answer and what the user says to it, reads only these: what was read before is kept, as far as there is room.
   *
   * @example for await (const { text } of model.chat([{ role: 'user', content: 'Who was Ada Lovelace?' }])) process.stdout.write(text);
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a model without a template, `ERR_DEPENDENCY` without `@huggingface/jinja`; as `generate`
   */
  chat(
    messages: readonly ChatMessage[],
    options: ChatOptions & GenerateOptions = {},
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    refuseSurplus(arguments.length, 2, 'model.chat(messages, options)');
    this.#lifetime.checkOpen();
    checkMessages(messages);
    const { tools, templateOptions, ...rest } = checkChatOptions(options);
    const resolved = resolveGenerateOptions(rest);
    return this.#generate(
      () => this.#texts.chatPrompt(messages, { tools, templateOptions, signal: rest.signal }),
      resolved,
    );
  }

  /**
   * The ids that `chat` goes on with. An aborted `signal` makes it reject with its reason.
   * @throws {HqqError} as `chat` does
   */
  async chatPrompt(messages: readonly ChatMessage[], options: ChatPromptOptions = {}): Promise<number[]> {
    refuseSurplus(arguments.length, 2, 'model.chatPrompt(messages, options)');
    checkMessages(messages);
    checkPromptOptions(options);
    return this.#lifetime.run(() => this.#texts.chatPrompt(messages, options));
  }

  /** How the model writes calls of tools, by its chat template. @internal */
  async toolForm(): Promise<ToolForm | undefined> {
    return this.#lifetime.run(async () => toolFormOf(await this.#texts.template()));
  }

  /**
   * Ends the model's life in order: calls from now on are `ERR_CLOSED` errors, those under way end as they would, and the promise
   * resolves when they have. So does a generation for as long as somebody waits for its next token; one that nobody asks (whose
   * reader is elsewhere, perhaps here) is not waited for, and goes on when it is asked. Then the weights are let go.
   */
  async close(): Promise<void> {
    refuseSurplus(arguments.length, 0, 'model.close()');
    await this.#lifetime.close(() => this.#texts.close());
    this.#decoder = undefined;
    this.#batcher = undefined;
    this.#prefixes = undefined;
  }

  /** @internal */
  [INSPECT](): string {
    const { architecture, layers, hiddenSize, vocabSize } = this.config;
    const sizes = [`vocabulary ${formatCount(vocabSize)}`, `context ${formatCount(this.maxContext)}`];
    const parts = [`${plural(layers, 'block')} of ${hiddenSize}`, ...sizes];
    return `LanguageModel { ${architecture}, ${parts.join(', ')}, ${formatBytes(this.memoryUsage.total)} }`;
  }

  async #forward(decoder: Decoder, ids: TokenIds, cache: KvCache, options: ForwardOptions): Promise<OwnedFloat32Array> {
    const { vocabSize } = this.config;
    checkIds(ids, vocabSize);
    checkCache(cache, this.config);
    rejectUnknownOptions(options, ['logits', 'adapter', 'signal', 'tap']);
    const { logits = 'last', adapter, signal, tap } = options;
    const adapters = this.#choose(adapter);
    checkSignal(signal);
    if (logits !== 'last' && logits !== 'all') {
      throw new HqqError('ERR_INVALID_OPTION', `Expected logits to be one of last, all, got ${show(logits)}.`);
    }
    if (tap !== undefined && typeof tap !== 'function') {
      throw new HqqError('ERR_INVALID_OPTION', `Expected tap to be a function, got ${show(tap)}.`);
    }
    const all = logits === 'all' ? allocating('the logits', () => new Float32Array(ids.length * vocabSize)) : undefined;
    cache.adapt(adapters);
    return cache.extend(ids.length, (start) => decoder.read(ids, cache, start, { signal, tap }, all));
  }

  /** @param make Gives the prompt, when the first token is asked for. */
  #generate(
    make: () => string | TokenIds | Promise<TokenIds>,
    resolved: ReturnType<typeof resolveGenerateOptions>,
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const { maxContext } = this;
    if (resolved.cache !== undefined) checkCache(resolved.cache, this.config);
    const adapters = this.#choose(resolved.adapter);
    return this.#lifetime.generate(() => {
      const [batcher, prefixes] = [this.#batcher!, this.#prefixes!]; // the generation's own: it may go on after `close`
      const model = {
        vocabSize: this.config.vocabSize,
        maxContext,
        tokenizer: () => this.#texts.tokenizer(),
        texts: () => this.#texts.tokenizer().then((tokenizer) => tokenizer.texts(this.config.vocabSize)),
        adapt: (cache: KvCache) => cache.adapt(adapters),
        begin: (ids: TokenIds) => prefixes.begin(ids, adapters),
        enter: () => batcher.enter(),
      };
      return generateTokens(model, this.#parts.endIds, make, resolved);
    });
  }

  #choose(adapter: AdapterChoice | undefined): Adapters {
    return chooseAdapters(this.#parts.adapters ?? [], adapter);
  }
}
