import { inTurns } from '../files/event-loop.js';
import type { Tap } from '../runtime/blocks/tap.js';
import { Encoder, isEncoderModel } from '../runtime/encoder/encoder.js';
import { type BlockSource, openBlockSource } from '../runtime/source/block-source.js';
import { placeColumns } from '../runtime/weights/columns.js';
import { Shares } from './shares.js';

/** A model that reads texts, block by block, and shows what goes into its linear layers. */
export interface Reader {
  readonly path: string;
  /** `encoder`: of the BERT family, which writes no text, and reads sentences. */
  readonly kind: 'language model' | 'encoder';
  readonly config: { readonly vocabSize: number; readonly maxPositions: number };
  /** Blocks that there are. */
  readonly count: number;
  read(texts: readonly Uint32Array[], tap: Tap, run: ReadRun): Promise<void>;
  /** The share that it gives each token of being the next one, `[vocabSize]`: the mean over all places of short texts. Undefined: it gives none. */
  expected?(
    texts: readonly Uint32Array[],
    signal: AbortSignal | undefined,
    report?: ReadRun['report'],
  ): Promise<Float64Array | undefined>;
  close(): Promise<void>;
}

interface ReadRun {
  /** Whether what goes into the last layer is shown, too. */
  readonly head: boolean;
  readonly signal: AbortSignal | undefined;
  /** Called with the tokens that have been through a block, the sum over all blocks. */
  readonly report: (done: number) => void;
}

/** The most that a block in memory takes: layers of a larger one read their weights as they run, a hundred megabytes of float32 or gigabytes. */
const BLOCK_BYTES = 32 * 1024 * 1024;

/** Bytes of the head that are in memory at once. A head may be several gigabytes. */
const HEAD_BYTES = 8 * 1024 * 1024;

/** Bytes of logits that are in memory at once, and the least rows, for which the head is read anew. */
const LOGIT_BYTES = 8 * 1024 * 1024;
const MIN_ROWS = 32;

const BYTES = Float32Array.BYTES_PER_ELEMENT;

interface OpenOptions {
  readonly threads: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/** @throws {HqqError} as `openBlockSource` and `Encoder.open` */
export async function openReader(path: string, options: OpenOptions): Promise<Reader> {
  options.signal?.throwIfAborted();
  return (await isEncoderModel(path))
    ? encoderReader(await Encoder.open(path, options))
    : languageReader(await openBlockSource(path, options));
}

/** Shows what goes into the last layer, of what comes out of the blocks. */
export async function showHeadInputs(
  source: BlockSource,
  hidden: readonly Float32Array[],
  tap: Tap,
  signal: AbortSignal | undefined,
): Promise<void> {
  // What goes in is the same for every token: a part of the weights is read, of those for one.
  for await (const { head } of source.headParts(1, { signal })) {
    for (const rows of hidden) await head.inputs(rows, tap, { signal });
    return;
  }
}

/** As a reader, which is to be closed in place of the source. */
export function languageReader(source: BlockSource): Reader {
  const { path, config, count } = source;
  return {
    ...{ path, kind: 'language model', config, count },
    async read(texts, tap, { head, signal, report }) {
      const hidden: Float32Array[] = [];
      for (const ids of texts) hidden.push(await source.embed(ids, { signal }));
      const perBlock = texts.reduce((sum, { length }) => sum + length, 0);
      for await (const block of source.filedBlocks(BLOCK_BYTES, { signal })) {
        const before = block.index * perBlock;
        const run = { out: hidden, tap, signal };
        await block.forward(hidden, { ...run, onProgress: ({ rowsDone }) => report(before + rowsDone) });
      }
      if (head) await showHeadInputs(source, hidden, tap, signal);
    },
    async expected(texts, signal, report) {
      const hidden: Float32Array[] = [];
      for (const ids of texts) hidden.push(await source.embed(ids, { signal }));
      const perBlock = texts.reduce((sum, { length }) => sum + length, 0);
      for await (const block of source.filedBlocks(BLOCK_BYTES, { signal })) {
        const before = block.index * perBlock;
        const onProgress = report && (({ rowsDone }: { rowsDone: number }) => report(before + rowsDone));
        await block.forward(hidden, { out: hidden, signal, onProgress });
      }
      const { vocabSize, hiddenSize } = config;
      const all = joined(hidden);
      const shares = new Shares(vocabSize);
      // Logits of a few rows at a time: those of all may be hundreds of megabytes, where vocabularies are large.
      const count = all.length / hiddenSize;
      const step = Math.min(count, Math.max(MIN_ROWS, Math.floor(LOGIT_BYTES / (vocabSize * BYTES))));
      const logits = new Float32Array(step * vocabSize);
      let part = new Float32Array(0);
      for (let at = 0; at < count; at += step) {
        const rows = Math.min(step, count - at);
        const x = all.subarray(at * hiddenSize, (at + rows) * hiddenSize);
        for await (const { from, tokens, head } of source.headParts(HEAD_BYTES, { signal })) {
          if (part.length < rows * tokens) part = new Float32Array(rows * tokens);
          const out = await head.forward(x, { out: part.subarray(0, rows * tokens), signal });
          await inTurns(placeColumns(out, tokens, logits, vocabSize, from), signal);
        }
        await inTurns(shares.add(logits.subarray(0, rows * vocabSize)), signal);
      }
      return shares.take();
    },
    close: () => source.close(),
  };
}

/** As `languageReader`, of an encoder. */
export function encoderReader(encoder: Encoder): Reader {
  const { path, config } = encoder;
  return {
    ...{ path, kind: 'encoder', config, count: config.layers },
    async read(texts, tap, { signal, report }) {
      const hidden: Float32Array[] = [];
      for (const ids of texts) hidden.push(await encoder.embed(ids, { signal }));
      let done = 0;
      for (let index = 0; index < config.layers; index++) {
        const block = await encoder.block(index, { signal });
        for (const rows of hidden) {
          await block.run(rows, { tap, signal });
          report((done += rows.length / config.hiddenSize));
        }
      }
    },
    close: () => encoder.close(),
  };
}

/** Rows one after the other. */
function joined(texts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(texts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const text of texts) {
    all.set(text, at);
    at += text.length;
  }
  return all;
}
