import { untilAborted } from '../../compute/signal.js';
import type { FilePath } from '../../files/path.js';
import type { TokenIds } from '../text/ids.js';
import { openTokenizer, type TextTokenizer } from '../text/tokenizer.js';
import { Encoder, type EncoderOptions } from './encoder.js';
import type { EncoderBlock } from './encoder-block.js';
import { type Pooling, pool, readPooling } from './pooling.js';

/** How vectors are made. */
export interface SentenceRun {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Vectors of texts, by an encoder all of whose weights are in memory.
 *
 * @internal What is public of it is not decided.
 */
export class SentenceEncoder {
  readonly #encoder: Encoder;
  readonly #blocks: readonly EncoderBlock[];
  readonly #pooling: Pooling;
  #tokenizer: Promise<TextTokenizer> | undefined;

  private constructor(encoder: Encoder, blocks: readonly EncoderBlock[], pooling: Pooling) {
    this.#encoder = encoder;
    this.#blocks = blocks;
    this.#pooling = pooling;
  }

  /** @throws {HqqError} as `Encoder.open` and `Encoder.block` do */
  static async load(path: FilePath, options: EncoderOptions = {}): Promise<SentenceEncoder> {
    const encoder = await Encoder.open(path, options);
    try {
      const blocks: EncoderBlock[] = [];
      for (let index = 0; index < encoder.config.layers; index++) blocks.push(await encoder.block(index, options));
      return new SentenceEncoder(encoder, blocks, await readPooling(encoder.path));
    } catch (error) {
      await encoder.close();
      throw error;
    }
  }

  /** Numbers of a vector. */
  get width(): number {
    return this.#encoder.config.hiddenSize;
  }

  /** Tokens that it knows. */
  get vocabSize(): number {
    return this.#encoder.config.vocabSize;
  }

  /** Most tokens of a text, with those that the tokenizer puts around it. */
  get maxTokens(): number {
    return this.#encoder.config.maxPositions;
  }

  /** Ids of a text, with what the tokenizer puts around it. @throws {HqqError} as `openTokenizer` does; the signal's reason */
  async encode(text: string, { signal }: SentenceRun = {}): Promise<readonly number[]> {
    this.#tokenizer ??= openTokenizer(this.#encoder.path);
    const tokenizer = await untilAborted(this.#tokenizer, signal);
    return untilAborted(tokenizer.encode(text), signal);
  }

  /** The vector of a text, `[width]`. @throws {HqqError} `ERR_INVALID_ARGUMENT` as `Encoder.embed`, `ERR_CLOSED`; the signal's reason */
  async embed(ids: TokenIds, { signal }: SentenceRun = {}): Promise<Float32Array> {
    const hidden = await this.#encoder.embed(ids, { signal });
    for (const block of this.#blocks) await block.run(hidden, { signal });
    return pool(hidden, this.width, this.#pooling);
  }

  /** Ends the tokenizer's thread, and closes the files. */
  async close(): Promise<void> {
    const tokenizer = await this.#tokenizer?.catch(() => undefined);
    await tokenizer?.close();
    await this.#encoder.close();
  }
}

/** Sentences of a text as ids, a line each, with what the tokenizer puts around them; what is longer than `most` tokens is cut. */
export async function linesAsIds(
  folder: string,
  text: string,
  { most, count, signal }: { readonly most: number; readonly count: number; readonly signal: AbortSignal | undefined },
): Promise<readonly (readonly number[])[]> {
  const tokenizer = await untilAborted(openTokenizer(folder), signal);
  try {
    const found: (readonly number[])[] = [];
    let tokens = 0;
    for (const line of text.split(/\r?\n/)) {
      if (line.trim() === '') continue;
      const ids = cutToFit(await untilAborted(tokenizer.encode(line), signal), most);
      if (ids.length === 0) continue;
      if (tokens + ids.length > count) break;
      found.push(ids);
      tokens += ids.length;
    }
    return found;
  } finally {
    await tokenizer.close();
  }
}

/** The last id, which ends a text, stays. */
function cutToFit(ids: readonly number[], most: number): readonly number[] {
  return ids.length <= most ? ids : [...ids.slice(0, most - 1), ids.at(-1)!];
}
