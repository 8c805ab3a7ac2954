import { untilAborted } from '../../compute/signal.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { FilePath } from '../../files/path.js';
import { HqqError, show } from '../../messages/errors.js';
import { refuseSurplus } from '../../messages/surplus.js';
import { plain } from '../../messages/text.js';
import { openFolderModel } from '../../models/folder-model.js';
import { naturalContext } from '../load.js';
import { type BlockSource, openBlockSource } from '../source/block-source.js';
import type { OpenHead } from '../source/open-head.js';
import { checkIds, type TokenIds } from '../text/ids.js';
import { randomNumbers } from '../text/sampling.js';
import { openTokenizer } from '../text/tokenizer.js';
import { type EvaluateOptions, type ResolvedEvaluate, resolveEvaluateOptions } from './options.js';
import { addToken, newSums, type Sums } from './scores.js';

/** Bytes that what goes through the blocks of a model may take: a longer text reads every model again for each so many. */
const BATCH_BYTES = 128 * 1024 * 1024;

/** Rows whose logits are in memory at once: a vocabulary may have 150,000 tokens. */
const LOGIT_ROWS = 16;

/** What became of one model. */
export interface ModelScore {
  /** Where it is, as it was given. */
  readonly path: string;
  /** Bytes of its tensors. */
  readonly bytes: number;
  /** `exp(nll)` */
  readonly perplexity: number;
  /** Mean negative log likelihood of a token, in nats. */
  readonly nll: number;
  /** Mean Kullback-Leibler divergence of its next tokens from those of the original, in nats; 0 for the original itself. */
  readonly klDivergence: number;
  /** Share of the tokens for which both find the same one the likeliest, 0 to 1. */
  readonly topAgreement: number;
}

/** Result of `evaluateModels`. */
export interface EvaluateReport {
  /** What was scored: a text, ids that were given, or random ids. */
  readonly source: 'text' | 'ids' | 'random';
  /** Tokens that were scored. */
  readonly tokens: number;
  /** Tokens of a window. */
  readonly window: number;
  /** What random ids followed from; absent of others. */
  readonly seed?: number;
  /** The model that the others are compared with. */
  readonly original: ModelScore;
  /** The others, in the order in which they were given. */
  readonly quantized: readonly ModelScore[];
}

/** A model of an evaluation. */
interface Subject {
  readonly path: string;
  readonly bytes: number;
  readonly source: BlockSource;
  readonly sums: Sums;
}

/** A window: what is read, and the token that comes after each. */
interface Window {
  readonly ids: TokenIds;
  readonly targets: TokenIds;
}

/**
 * Runs an original and what was made of it on the same tokens, and tells how far apart they are: perplexity, divergence of the
 * probabilities, and how often both would go on with the same token. On random ids, which need neither text nor tokenizer, divergence
 * and agreement are what tells; no perplexity means much there.
 *
 * Models go through memory block by block: it holds one block, two heads, and up to 256 MiB of what lies between blocks.
 *
 * @param quantized One model, or several, which are compared side by side.
 * @example const { quantized } = await evaluateModels('Llama-3.2-1B', ['q4', 'q3'], { text });
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_INVALID_ARGUMENT`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`; `ERR_CHECKPOINT_CONTENT` for a
 *   model that this runtime does not compute, or one of another vocabulary; the signal's reason
 */
export async function evaluateModels(
  original: FilePath,
  quantized: FilePath | readonly FilePath[],
  options: EvaluateOptions = {},
): Promise<EvaluateReport> {
  refuseSurplus(arguments.length, 3, 'evaluateModels(original, quantized, options)');
  const asked = resolveEvaluateOptions(options);
  const others = Array.isArray(quantized) ? (quantized as readonly FilePath[]) : [quantized as FilePath];
  if (others.length === 0) {
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected models to compare with the original, got ${show(quantized)}.`);
  }
  const subjects: Subject[] = [];
  try {
    for (const path of [original, ...others]) subjects.push(await openSubject(path, asked));
    checkAlike(subjects, asked.window);
    const windows = windowsOf(await idsOf(subjects[0]!.source, asked), asked);
    await scoreAll(subjects, windows, asked);
  } finally {
    for (const { source } of subjects) await source.close();
  }
  const [first, ...rest] = subjects.map(scoreOf);
  const { source, window, seed } = asked;
  const { tokens } = subjects[0]!.sums;
  return {
    ...{ source, tokens, window, ...(source === 'random' && { seed }) },
    ...{ original: first!, quantized: rest },
  };
}

async function openSubject(
  path: FilePath,
  { activations, adapters, threads, signal }: ResolvedEvaluate,
): Promise<Subject> {
  signal?.throwIfAborted();
  const source = await openBlockSource(path, { activations, adapters, threads, signal });
  const model = await openFolderModel(source.path);
  const bytes = model.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  await model.close();
  return { path: String(path), bytes, source, sums: newSums() };
}

function checkAlike(subjects: readonly Subject[], window: number): void {
  const [{ source: original, path: first }] = subjects as [Subject];
  for (const { source, path } of subjects) {
    const context = naturalContext(source.config);
    if (window > context) {
      const message = `Expected window (--window) to be an integer in [1, ${context}], the context of ${plain(path)}`;
      throw new HqqError('ERR_INVALID_ARGUMENT', `${message}, got ${window}.`);
    }
    const [got, want] = [source.config.vocabSize, original.config.vocabSize];
    if (got === want) continue;
    const message = `Expected ${plain(path)} to have the vocabulary of ${plain(first)}, ${want} tokens, got ${got}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: only logits of the same tokens can be compared.`);
  }
}

async function idsOf(source: BlockSource, asked: ResolvedEvaluate): Promise<TokenIds> {
  const { vocabSize } = source.config;
  if (asked.source === 'random') {
    const random = randomNumbers(asked.seed);
    const count = asked.tokens - (asked.tokens % asked.window) + 1;
    return Uint32Array.from({ length: count }, () => Math.floor(random() * vocabSize));
  }
  if (asked.text === undefined) {
    checkIds(asked.ids!, vocabSize);
    return asked.ids!;
  }
  const tokenizer = await openTokenizer(source.path);
  try {
    const ids = await untilAborted(tokenizer.encode(asked.text), asked.signal);
    checkIds(ids, vocabSize);
    return ids;
  } finally {
    await tokenizer.close();
  }
}

function windowsOf(ids: TokenIds, { window, tokens }: ResolvedEvaluate): readonly Window[] {
  const count = Math.floor(Math.min(ids.length - 1, tokens) / window);
  if (count === 0) {
    const got = tokens < ids.length - 1 ? `tokens ${tokens}` : `${ids.length}`;
    const message = `Expected at least ${window + 1} token ids for a window of ${window}, got ${got}`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message}. Give a longer text or a smaller window.`);
  }
  return Array.from({ length: count }, (_, w) => ({
    ids: ids.slice(w * window, (w + 1) * window),
    targets: ids.slice(w * window + 1, (w + 1) * window + 1),
  }));
}

async function scoreAll(
  subjects: readonly Subject[],
  windows: readonly Window[],
  { window, signal, onProgress }: ResolvedEvaluate,
): Promise<void> {
  const [original] = subjects as [Subject];
  const widest = Math.max(...subjects.map(({ source }) => source.config.hiddenSize));
  const perBatch = Math.max(1, Math.floor(BATCH_BYTES / (window * widest * Float32Array.BYTES_PER_ELEMENT)));
  const stepsTotal =
    subjects.reduce((sum, { source }) => sum + source.count + 1, 0) * Math.ceil(windows.length / perBatch);
  let stepsDone = 0;
  const tell = (path: string, steps: number) => {
    stepsDone += steps;
    onProgress?.({ model: path, stepsDone, stepsTotal });
  };
  for (let at = 0; at < windows.length; at += perBatch) {
    const batch = windows.slice(at, at + perBatch);
    let truth: Hidden | undefined;
    for (const subject of subjects) {
      tell(subject.path, 0);
      const texts = await throughBlocks(subject, batch, signal, tell);
      const head = await subject.source.head({ signal });
      truth ??= { head, texts };
      await compareHeads(subject, truth, { head, texts }, batch, signal);
      if (subject !== original) await head.close();
      tell(subject.path, 1);
    }
  }
}

/** What comes out of the blocks of a model, one array a window, and what makes logits of it. */
interface Hidden {
  readonly head: OpenHead;
  readonly texts: readonly Float32Array[];
}

async function throughBlocks(
  { source, path }: Subject,
  batch: readonly Window[],
  signal: AbortSignal | undefined,
  tell: (path: string, steps: number) => void,
): Promise<readonly Float32Array[]> {
  const texts: Float32Array[] = [];
  for (const { ids } of batch) texts.push(await source.embed(ids, { signal }));
  for await (const block of source.blocks({ signal })) {
    await block.forward(texts, { out: texts, signal });
    tell(path, 1);
  }
  return texts;
}

async function compareHeads(
  { source, sums }: Subject,
  truth: Hidden,
  own: Hidden,
  batch: readonly Window[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const { vocabSize } = source.config;
  const isSame = truth.texts === own.texts;
  const p = new Float32Array(LOGIT_ROWS * vocabSize);
  const q = isSame ? p : new Float32Array(LOGIT_ROWS * vocabSize);
  const logits = ({ head, texts }: Hidden, window: number, from: number, to: number, out: Float32Array) => {
    const width = texts[window]!.length / batch[window]!.ids.length;
    const rows = texts[window]!.subarray(from * width, to * width);
    return head.forward(rows, { out: out.subarray(0, (to - from) * vocabSize), signal });
  };
  for (const [w, { targets }] of batch.entries()) {
    for (let from = 0; from < targets.length; from += LOGIT_ROWS) {
      const to = Math.min(from + LOGIT_ROWS, targets.length);
      await logits(truth, w, from, to, p);
      if (!isSame) await logits(own, w, from, to, q);
      for (let row = from; row < to; row++) {
        const cut = (all: Float32Array) => all.subarray((row - from) * vocabSize, (row - from + 1) * vocabSize);
        addToken(sums, cut(p), cut(q), targets[row]!);
        await yieldIfDue();
      }
    }
  }
}

function scoreOf({ path, bytes, sums }: Subject): ModelScore {
  const { tokens, nll, divergence, agreements } = sums;
  return {
    ...{ path, bytes, perplexity: Math.exp(nll / tokens), nll: nll / tokens },
    klDivergence: Math.max(divergence / tokens, 0), // never -0, nor less by rounding
    topAgreement: agreements / tokens,
  };
}
