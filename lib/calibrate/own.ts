import { yieldIfDue } from '../files/event-loop.js';
import { loadMerged } from '../runtime/load.js';
import type { LanguageModel } from '../runtime/model.js';
import { Sampler } from '../runtime/text/sampling.js';
import { textLengths } from './ids.js';

interface OwnRun {
  readonly tokens: number;
  readonly seed: number;
  readonly threads: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly progress: (done: number) => void;
  /** A folder of an adapter that is merged into the model. */
  readonly adapter?: string | undefined;
  /** Tokens of a text, at most. @default 256 */
  readonly textTokens?: number | undefined;
  /** @default FLOAT_BYTES */
  readonly floatBytes?: number | undefined;
}

/** What a model's floats may take while it writes, as float32: one that has more of them writes with 8 bits, which take a quarter. */
const FLOAT_BYTES = 1 << 30;

/** Texts that are written at a time: the weights come from memory once for a token of each. */
const TOGETHER = 8;

/** What is drawn as the model says. */
const AS_IT_SAYS = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 };

/**
 * Texts that the model writes itself, drawn as it says, each from the token that begins a text: where it ends one, it begins the next.
 * The whole model is in memory meanwhile; a large one in 8 bits, which hardly change what it says.
 */
export async function ownTexts(
  path: string,
  { tokens, seed, threads, signal, progress, textTokens, adapter, floatBytes = FLOAT_BYTES }: OwnRun,
): Promise<readonly Uint32Array[]> {
  const model = await loadMerged(path, adapter, { threads, signal }, floatBytes);
  try {
    const lengths = textLengths(tokens, { ...model.config, textTokens });
    const written: Uint32Array[] = [];
    let before = 0;
    while (written.length < lengths.length) {
      const from = written.length;
      const group = lengths
        .slice(from, from + TOGETHER)
        .map((length, i) => new OwnText(model, { length, seed: seed + (from + i) * 2 ** 32 }));
      await write(model, group, signal, (done) => progress(before + done));
      for (const { ids } of group) written.push(Uint32Array.from(ids));
      before += group.reduce((sum, { ids }) => sum + ids.length, 0);
    }
    return written;
  } finally {
    await model.close();
  }
}

/** Writes texts to their ends, a token of each at a time. */
async function write(
  model: LanguageModel,
  group: readonly OwnText[],
  signal: AbortSignal | undefined,
  progress: (done: number) => void,
): Promise<void> {
  for (;;) {
    const open = group.filter((text) => !text.done);
    if (open.length === 0) return;
    const [ids, caches] = [open.map(({ last }) => last), open.map(({ cache }) => cache)];
    const logits = await model.forwardEach(ids, caches, { signal });
    for (const [i, text] of open.entries()) {
      text.goOn(logits[i]!);
      await yieldIfDue();
    }
    progress(group.reduce((sum, text) => sum + text.ids.length, 0));
  }
}

/** One of them, as it comes into being. */
class OwnText {
  readonly ids: number[] = [];
  readonly cache: ReturnType<LanguageModel['createCache']>;
  readonly #begin: number;
  readonly #ends: readonly number[];
  readonly #length: number;
  readonly #seed: number;
  #pieces = 0;
  #sampler!: Sampler;

  constructor(model: LanguageModel, { length, seed }: { readonly length: number; readonly seed: number }) {
    const { beginId, endIds, vocabSize } = model.config;
    this.cache = model.createCache();
    this.#begin = [beginId, endIds[0]].find((id) => id !== undefined && id < vocabSize) ?? 0;
    this.#ends = model.endIds;
    this.#length = length;
    this.#seed = seed;
    this.#beginPiece();
  }

  get done(): boolean {
    return this.ids.length >= this.#length;
  }

  /** The token that is to be read next. */
  get last(): number {
    return this.ids.at(-1)!;
  }

  /** Draws the token that follows what was read. */
  goOn(logits: Float32Array): void {
    const id = this.#sampler.next(logits);
    this.ids.push(id);
    if (this.#ends.includes(id) && !this.done) this.#beginPiece();
  }

  /** Every piece of every text draws with numbers of its own. */
  #beginPiece(): void {
    this.cache.truncate(0);
    this.#sampler = new Sampler({ ...AS_IT_SAYS, seed: (this.#seed + this.#pieces++ * 2 ** 44) % 2 ** 53 }, []);
    this.ids.push(this.#begin);
  }
}
