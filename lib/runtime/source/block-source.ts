import { activeBackend } from '../../backend/index.js';
import { untilAborted } from '../../compute/signal.js';
import type { FilePath } from '../../files/path.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import { HqqError, show } from '../../messages/errors.js';
import { Closing, INSPECT, notCloneable } from '../../messages/objects.js';
import { refuseSurplus } from '../../messages/surplus.js';
import { plain } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { openFolderModel } from '../../models/folder-model.js';
import type { Model } from '../../models/model.js';
import { type Block, blockName } from '../blocks/block.js';
import { HEAD_MODULE, type Head } from '../blocks/head.js';
import { Rope } from '../blocks/rope.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import { Lifetime } from '../lifetime.js';
import { configOf } from '../load.js';
import { type LoadLanguageModelOptions, resolveLoadOptions } from '../load-options.js';
import { checkIds, type TokenIds } from '../text/ids.js';
import { readAdapters } from '../weights/adapters.js';
import { Slots } from '../weights/filed-linear.js';
import type { ReadOptions } from '../weights/linears.js';
import { type Filed, WeightReader } from '../weights/read.js';
import { OWN } from '../weights/slabs.js';
import { blockSpec, checkTensors, headSpec, unitsOf } from '../weights/tensors.js';
import { Holding } from './holding.js';
import { OpenBlock } from './open-block.js';
import { type HeadPart, OpenHead } from './open-head.js';
import type { OpenPart, PartContext } from './open-part.js';
import { checkPartOptions, type PartOptions } from './part-options.js';
import { Desk, Shelf } from './shelf.js';
import { Turns } from './turns.js';

/** How the parts of a model compute. Of `adapters` all texts have all. */
export type BlockSourceOptions = Pick<LoadLanguageModelOptions, 'activations' | 'adapters' | 'threads' | 'signal'>;
const OPTIONS = ['activations', 'adapters', 'threads', 'signal'] as const;

/**
 * Opens a language model to run it part by part: whatever `loadLanguageModel` loads, with the weights of one block in memory at a time.
 *
 * @example
 * const source = await openBlockSource('Llama-2-7b');
 * let texts = [await source.embed(ids)];
 * for await (const block of source.blocks()) texts = await block.forward(texts, { tap });
 * const head = await source.head();
 * const logits = await head.forward(texts[0].subarray(-source.config.hiddenSize));
 * await source.close();
 * @throws {HqqError} as `loadLanguageModel` does; what the model's tensors are is checked before any of them is read.
 */
export async function openBlockSource(path: FilePath, options: BlockSourceOptions = {}): Promise<BlockSource> {
  refuseSurplus(arguments.length, 2, 'openBlockSource(path, options)');
  return openMergedSource(path, undefined, options);
}

/** The same of a model that an adapter is merged into, where there is one. @internal */
export async function openMergedSource(path: FilePath, adapter: string | undefined, options: BlockSourceOptions) {
  const { activations, adapters: folders, threads, signal } = resolveLoadOptions(options, OPTIONS);
  signal?.throwIfAborted();
  const machine = { backend: activeBackend(), threads };
  const model = await openFolderModel(path, adapter);
  try {
    signal?.throwIfAborted();
    const config = configOf(model);
    checkTensors(model, config);
    const adapters = await readAdapters(model, config, folders, signal);
    return new BlockSource(model, config, { machine, activations, adapters });
  } catch (error) {
    await model.close();
    throw error;
  }
}

interface How extends Pick<PartContext<Block>, 'machine' | 'adapters'> {
  readonly activations: 'float32' | 'int8';
}

const NOT_CLONEABLE = notCloneable('A BlockSource, which stays in its thread: post its path, and open it there,');

/**
 * A language model on disk, whose blocks are read when they are asked for. One part of it is in memory at a time: the next one, block or
 * head, closes the one before it when the calls on that are done (so a tap must not wait for the next part).
 */
export class BlockSource extends Closing {
  /** Where it was found: as it was given, or in the cache of Hugging Face. */
  readonly path: string;
  /** What config.json says: `hiddenSize` numbers a row between blocks, `layers` blocks, `vocabSize` logits a row. */
  readonly config: LanguageModelConfig;
  /** @internal */
  readonly notCloneable = NOT_CLONEABLE;
  readonly #model: Model;
  readonly #how: How;
  /** What all blocks compute with. */
  readonly #run: Omit<ConstructorParameters<typeof OpenBlock>[2], keyof PartContext<Block>>;
  readonly #lifetime = new Lifetime('the block source');
  readonly #shelf = new Shelf();
  #part: OpenPart | undefined;
  readonly #opening = new Turns();
  /** Rows of quantized tables are decoded for one call after the other, and in the same memory. */
  readonly #embedding = new Turns();

  /** @internal Use `openBlockSource`. */
  constructor(model: Model, config: LanguageModelConfig, how: How) {
    super();
    this.path = model.path;
    this.config = config;
    this.#model = model;
    this.#how = how;
    this.#run = {
      ropes: config.ropes.map((rope) => new Rope(rope)),
      desk: new Desk(config),
      activations: how.activations,
    };
  }

  /** Blocks that there are. */
  get count(): number {
    return this.config.layers;
  }

  /** Block by block, the modules that are quantized alike, since engines run them as one. @internal */
  get units(): readonly (readonly (readonly string[])[])[] {
    const has = (name: string) => this.#model.shapes.has(name);
    return Array.from({ length: this.count }, (_, index) => unitsOf(blockSpec(this.config, index, has)));
  }

  /**
   * Bytes that the weights of the open part take in memory; 0 where none is, also while one is being read. What `block.replace` was given
   * is counted by the block that it made.
   */
  get memoryUsage(): number {
    return this.#part?.memoryUsage ?? 0;
  }

  /**
   * What a text is to the first block: the embeddings of its tokens, `[ids.length, hiddenSize]`. Only theirs are read; of a quantized table,
   * the parts that hold them, one after the other, of one call at a time.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for ids that are none, `ERR_IO`, `ERR_OUT_OF_MEMORY`, `ERR_CLOSED`; the signal's reason
   */
  async embed(ids: TokenIds, options: PartOptions = {}): Promise<OwnedFloat32Array> {
    refuseSurplus(arguments.length, 2, 'source.embed(ids, options)');
    const { signal } = checkPartOptions(options);
    checkIds(ids, this.config.vocabSize);
    const own = Uint32Array.from(ids); // whatever the caller does with them meanwhile
    return this.#lifetime.run(async () => {
      const { threads } = this.#how.machine;
      const reader = new WeightReader(this.#model, this.config);
      const read = () => reader.embeddingRows(own, { signal, threads });
      signal?.throwIfAborted();
      return reader.embeddingIsCoded ? this.#embedding.take(read, signal) : read();
    });
  }

  /**
   * Reads a block, and lets go the part before it, save where the signal is aborted before it is this call's turn.
   *
   * @param index 0 to `count - 1`
   * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`, `ERR_OUT_OF_MEMORY`, `ERR_CLOSED`; the signal's reason
   */
  async block(index: number, options: PartOptions = {}): Promise<OpenBlock> {
    refuseSurplus(arguments.length, 2, 'source.block(index, options)');
    const { signal } = checkPartOptions(options);
    if (!Number.isSafeInteger(index) || index < 0 || index >= this.count) {
      const message = `Expected index to be an integer in [0, ${this.count - 1}], got ${show(index)}.`;
      throw new HqqError('ERR_INVALID_ARGUMENT', message);
    }
    return this.#block(index, signal);
  }

  #block(index: number, signal: AbortSignal | undefined, filed?: Filed): Promise<OpenBlock> {
    return this.#open(blockName(index), signal, async (reader, run, context: PartContext<Block>) => {
      const block = await reader.block(index, run, filed);
      return new OpenBlock(index, block, { ...context, ...this.#run });
    });
  }

  /**
   * All blocks, one after the other: each is closed when the next one is asked for, and when the loop ends, which it does when its body has
   * closed the source.
   */
  blocks(options: PartOptions = {}): AsyncGenerator<OpenBlock, void, undefined> {
    refuseSurplus(arguments.length, 1, 'source.blocks(options)');
    return this.#blocks(checkPartOptions(options));
  }

  /**
   * The same, but blocks that would take more than `bytes` in float32 stay in their file: each layer reads its weights, some at a time, whenever
   * it runs.
   *
   * @internal
   */
  filedBlocks(bytes: number, options: PartOptions): AsyncGenerator<OpenBlock, void, undefined> {
    refuseSurplus(arguments.length, 2, 'source.filedBlocks(bytes, options)');
    return this.#blocks(options, { bytes, slots: new Slots() });
  }

  async *#blocks({ signal }: PartOptions, filed?: Filed): AsyncGenerator<OpenBlock, void, undefined> {
    let block: OpenBlock | undefined;
    try {
      for (let index = 0; index < this.count; index++) {
        if (block && this.#lifetime.closed) return;
        yield (block = await this.#block(index, signal, filed));
      }
    } finally {
      await block?.close();
    }
  }

  /** Reads what follows the blocks, and lets go the part before it. A tied head is the whole embedding. @throws as `block` */
  async head(options: PartOptions = {}): Promise<OpenHead> {
    refuseSurplus(arguments.length, 1, 'source.head(options)');
    const { signal } = checkPartOptions(options);
    return this.#open('the head', signal, async (reader, run, context: PartContext<Head>) => {
      return new OpenHead(await reader.head(run), context);
    });
  }

  /**
   * What follows the blocks in parts, each for the tokens from `from` on, as many as take no more than `bytes` in float32. A head of codes is
   * one part. Each is closed when the next one is asked for.
   *
   * @internal
   */
  headParts(bytes: number, options: PartOptions): AsyncGenerator<HeadPart, void, undefined> {
    refuseSurplus(arguments.length, 2, 'source.headParts(bytes, options)');
    return this.#headParts(bytes, options);
  }

  async *#headParts(bytes: number, { signal }: PartOptions): AsyncGenerator<HeadPart, void, undefined> {
    const [{ config }, { vocabSize, hiddenSize, tied }] = [this, this.config];
    const adapted = this.#how.adapters.some(({ factors }) => factors.has(HEAD_MODULE)); // which is not cut
    if (adapted || (!tied && new WeightReader(this.#model, config).isCoded(headSpec(config)))) {
      yield { from: 0, tokens: vocabSize, head: await this.head({ signal }) };
      return;
    }
    const most = Math.max(1, Math.floor(bytes / (hiddenSize * Float32Array.BYTES_PER_ELEMENT)));
    for (let from = 0; from < vocabSize; from += most) {
      const tokens = Math.min(most, vocabSize - from);
      const head = await this.#open('a part of the head', signal, async (reader, run, context: PartContext<Head>) => {
        const part = await reader.headPart([from, from + tokens], run);
        return new OpenHead(part, { ...context, config: { ...config, vocabSize: tokens } });
      });
      yield { from, tokens, head };
    }
  }

  /** Closes the part that is open and the files, when the calls under way are done; later ones are `ERR_CLOSED` errors. */
  async close(): Promise<void> {
    refuseSurplus(arguments.length, 0, 'source.close()');
    await this.#lifetime.close(async () => {
      await this.#part?.close();
      this.#shelf.clear();
      await this.#model.close();
    });
  }

  /** @internal */
  [INSPECT](): string {
    const { hiddenSize, architecture } = this.config;
    return `BlockSource { ${plain(this.path)}, ${architecture}, ${plural(this.count, 'block')} of ${hiddenSize} }`;
  }

  /** Parts are opened one after the other, however many are asked for at once. */
  #open<T extends OpenPart, Weights extends object>(
    name: string,
    signal: AbortSignal | undefined,
    read: (reader: WeightReader, run: ReadOptions, context: PartContext<Weights>) => Promise<T>,
  ): Promise<T> {
    return this.#lifetime.run(() => {
      return this.#opening.take(async () => {
        if (this.#part) await untilAborted(this.#part.close(), signal);
        const { machine, activations, adapters } = this.#how;
        const taken: Float32Array[] = [];
        const letGo = () => {
          this.#part = undefined;
          this.#shelf.giveBack(taken);
        };
        const floats = (count: number) => {
          const array = this.#shelf.take(count);
          taken.push(array);
          return array;
        };
        const reader = new WeightReader(this.#model, this.config, { ...OWN, floats });
        try {
          const [lifetime, holding] = [new Lifetime(name), new Holding<Weights>()];
          const context = { config: this.config, machine, adapters, lifetime, holding, whenClosed: letGo };
          return (this.#part = await read(reader, { activations, signal, threads: machine.threads }, context));
        } catch (error) {
          letGo();
          throw error;
        } finally {
          this.#shelf.clear();
        }
      }, signal);
    });
  }
}
