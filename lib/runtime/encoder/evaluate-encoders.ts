import type { FilePath } from '../../files/path.js';
import { HqqError, show } from '../../messages/errors.js';
import { refuseSurplus } from '../../messages/surplus.js';
import { plain } from '../../messages/text.js';
import { type EvaluateOptions, type ResolvedEvaluate, resolveEvaluateOptions } from '../evaluate/options.js';
import { checkIds, type TokenIds } from '../text/ids.js';
import { randomNumbers } from '../text/sampling.js';
import { Encoder } from './encoder.js';
import type { EncoderConfig } from './encoder-config.js';
import { type Pooling, pool, readPooling } from './pooling.js';
import { linesAsIds } from './sentences.js';

/** Bytes that what goes through the blocks may take: of more sentences every model is read again for each so many. */
const BATCH_BYTES = 128 * 1024 * 1024;

/** What became of one encoder. */
export interface EncoderScore {
  /** Where it is, as it was given. */
  readonly path: string;
  /** Bytes of its tensors. */
  readonly bytes: number;
  /** Mean cosine of its vectors of the sentences with those of the original; 1 for the original itself. */
  readonly cosine: number;
  /** That of the sentence whose vectors are furthest apart. */
  readonly leastCosine: number;
}

/** Result of `evaluateEncoders`. */
export interface EncoderReport {
  /** What was read: the lines of a text, ids that were given, or random ids. */
  readonly source: 'text' | 'ids' | 'random';
  /** How many sentences were embedded. */
  readonly sentences: number;
  /** Tokens of all sentences. */
  readonly tokens: number;
  /** What random ids followed from; absent of others. */
  readonly seed?: number;
  /** The model that the others are compared with. */
  readonly original: EncoderScore;
  /** The others, in the order in which they were given. */
  readonly quantized: readonly EncoderScore[];
}

/**
 * Runs an encoder of the BERT family and what was made of it on the same sentences, and tells how far their vectors are apart: pooled as
 * the original's `modules.json` says, else the mean over tokens. Each line of a `text` is a sentence, of up to `window` tokens; `ids` and
 * random ids are cut into sentences of `window`. Models go through memory block by block.
 *
 * @param quantized One model, or several, which are compared side by side.
 * @example const { quantized } = await evaluateEncoders('all-MiniLM-L6-v2', ['q4', 'q3'], { text });
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_INVALID_ARGUMENT`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`; `ERR_CHECKPOINT_CONTENT` for a
 *   model that is no encoder which runs, or one of other sizes; the signal's reason
 */
export async function evaluateEncoders(
  original: FilePath,
  quantized: FilePath | readonly FilePath[],
  options: EvaluateOptions = {},
): Promise<EncoderReport> {
  refuseSurplus(arguments.length, 3, 'evaluateEncoders(original, quantized, options)');
  const asked = resolveEvaluateOptions(options);
  const others = Array.isArray(quantized) ? (quantized as readonly FilePath[]) : [quantized as FilePath];
  if (others.length === 0) {
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected models to compare with the original, got ${show(quantized)}.`);
  }
  if (Object.keys(asked.adapters).length > 0)
    throw new HqqError(
      'ERR_INVALID_OPTION',
      'Expected no adapter (--adapter): encoders have none beside their weights.',
    );
  const { activations, threads, signal, source, seed } = asked;
  const encoders: { readonly path: FilePath; readonly encoder: Encoder }[] = [];
  try {
    for (const path of [original, ...others])
      encoders.push({ path, encoder: await Encoder.open(path, { activations, threads, signal }) });
    const [{ encoder: first }, ...rest] = encoders as [(typeof encoders)[number], ...typeof encoders];
    for (const { path, encoder } of rest) checkAlike(encoder, first, path);
    const sentences = await sentencesOf(first, asked);
    const pooling = await readPooling(first.path);
    const batches = batchesOf(sentences, first.config);
    const stepsTotal = batches.length * encoders.reduce((sum, { encoder }) => sum + encoder.config.layers, 0);
    const cosines: number[][] = encoders.map(() => []);
    let stepsDone = 0;
    for (const batch of batches) {
      let truth: readonly Float32Array[] | undefined;
      for (const [e, { path, encoder }] of encoders.entries()) {
        const tell = (steps: number) => {
          stepsDone += steps;
          asked.onProgress?.({ model: String(path), stepsDone, stepsTotal });
        };
        const vectors = await vectorsOf(encoder, batch, { pooling, signal, tell });
        truth ??= vectors;
        for (const [i, vector] of vectors.entries()) cosines[e]!.push(e === 0 ? 1 : cosine(vector, truth[i]!));
      }
    }
    const scores = encoders.map(({ path, encoder: { bytes } }, e): EncoderScore => {
      const mean = cosines[e]!.reduce((sum, one) => sum + one, 0) / sentences.length;
      return { path: String(path), bytes, cosine: mean, leastCosine: cosines[e]!.reduce((a, b) => Math.min(a, b)) };
    });
    return {
      ...{ source, sentences: sentences.length, tokens: sentences.reduce((sum, { length }) => sum + length, 0) },
      ...{ ...(source === 'random' && { seed }), original: scores[0]!, quantized: scores.slice(1) },
    };
  } finally {
    for (const { encoder } of encoders) await encoder.close();
  }
}

/** Sentences that go through the blocks together. */
function batchesOf(sentences: readonly TokenIds[], { hiddenSize }: EncoderConfig): readonly (readonly TokenIds[])[] {
  const batches: TokenIds[][] = [];
  let bytes = Infinity;
  for (const ids of sentences) {
    const own = ids.length * hiddenSize * Float32Array.BYTES_PER_ELEMENT;
    if (bytes + own > BATCH_BYTES) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)!.push(ids);
    bytes += own;
  }
  return batches;
}

function checkAlike({ config: own }: Encoder, { config }: Encoder, path: FilePath): void {
  for (const name of ['hiddenSize', 'vocabSize', 'maxPositions'] as const) {
    if (own[name] === config[name]) continue;
    const message = `Expected ${plain(String(path))} to have the ${name} of the original, ${config[name]}, got ${own[name]}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: only vectors of the same sentences can be compared.`);
  }
}

async function sentencesOf({ path, config }: Encoder, asked: ResolvedEvaluate): Promise<readonly TokenIds[]> {
  const { text, ids, tokens, seed, signal } = asked;
  const most = Math.min(asked.window, config.maxPositions);
  if (text !== undefined) {
    const found = await linesAsIds(path, text, { most, count: tokens, signal });
    if (found.length > 0) return found;
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected a text with a line of at most ${tokens} tokens, got none.`);
  }
  if (ids !== undefined) checkIds(ids, config.vocabSize);
  const random = randomNumbers(seed);
  const count = Math.min(tokens, ids?.length ?? Infinity);
  const all = ids ?? Uint32Array.from({ length: count }, () => Math.floor(random() * config.vocabSize));
  return Array.from({ length: Math.ceil(count / most) }, (_, i) =>
    all.slice(i * most, Math.min((i + 1) * most, count)),
  );
}

interface VectorsRun {
  readonly pooling: Pooling;
  readonly signal: AbortSignal | undefined;
  readonly tell: (steps: number) => void;
}

/** One vector a sentence. */
async function vectorsOf(
  encoder: Encoder,
  sentences: readonly TokenIds[],
  { pooling, signal, tell }: VectorsRun,
): Promise<readonly Float32Array[]> {
  const hidden: Float32Array[] = [];
  for (const ids of sentences) hidden.push(await encoder.embed(ids, { signal }));
  for (let index = 0; index < encoder.config.layers; index++) {
    tell(0);
    const block = await encoder.block(index, { signal });
    for (const rows of hidden) await block.run(rows, { signal });
    tell(1);
  }
  return hidden.map((rows) => pool(rows, encoder.config.hiddenSize, pooling));
}

/** Of two vectors; 0 where one is all zeros. */
function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return aa > 0 && bb > 0 ? dot / Math.sqrt(aa * bb) : 0;
}
