import { checkSignal } from '../compute/signal.js';
import { containerNameOf, openSource } from '../containers/list.js';
import { type FilePath, pathOf } from '../files/path.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { refuseSurplus } from '../messages/surplus.js';
import { plain } from '../messages/text.js';
import { IMPORTANCE_OPTIONS, type ImportanceSource } from '../models/importance-options.js';
import { giveBack } from './give-back.js';
import { cutTexts } from './ids.js';
import { likelyTexts } from './likely.js';
import { ownTexts } from './own.js';
import { openReader, type Reader } from './reader.js';
import { Squares } from './squares.js';
import type { Statistics } from './statistics.js';
import { readStatistics } from './statistics-file.js';
import { encodeText, fileOfText, sentencesOf, textOfFile } from './text.js';

/** How far statistics are. */
export interface CollectProgress {
  /** `expecting`: which tokens the model expects is found, for random ones; `writing`: it writes a text; `reading`: it reads. */
  readonly phase: 'expecting' | 'writing' | 'reading';
  /** Of `writing`: tokens so far. Of the others: tokens that have been through a block, the sum over all blocks. */
  readonly done: number;
  /** How many there will be. */
  readonly total: number;
}

/** How `collectImportance` collects. */
export interface CollectOptions {
  /** As for `quantizeModel`, without `'auto'` and `'none'`. @default 'random' */
  readonly importance?: ImportanceSource | undefined;
  /** As for `quantizeModel`. @default 0 */
  readonly seed?: number | undefined;
  /** As for `quantizeModel`. @default 2048 */
  readonly tokens?: number | undefined;
  /**
   * Whether the last linear layer, `lm_head`, is among them: its weight is read, which is large.
   *
   * @default true
   */
  readonly head?: boolean | undefined;
  /** Threads that compute, 1 to 256. @default HQQ_THREADS, else the parallelism that the system offers */
  readonly threads?: number | undefined;
  /** Ends the call: it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called again and again. An error that it throws ends the call. */
  readonly onProgress?: ((progress: CollectProgress) => void) | undefined;
}

/**
 * Finds how much the errors of each input feature count, for every linear layer of a language model that `hqq/runtime` runs, or of an
 * encoder of the BERT family (whose `text` is read line by line): the mean of the squares that go into it. The model is read block by
 * block, and one block's weights are in memory at a time, of a large block a part of them; for random tokens twice: they are drawn as often as
 * the model expects them.
 * Of an ONNX model, whose graph `onnxruntime-node` runs (`npm install onnxruntime-node`), a few nodes at a time: by the names of weights.
 *
 * @example
 * const { meanSquares } = await collectImportance('Llama-3.2-1B', { tokens: 2048 });
 * const q = await quantize(weight, { nbits: 3 }, { importance: meanSquares.get('model.layers.0.mlp.up_proj') });
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`, `ERR_OUT_OF_MEMORY`; `ERR_CHECKPOINT_CONTENT` for a model
 *   that the runtime does not run, or statistics that are none; `ERR_DEPENDENCY` for a text without a tokenizer; the signal's reason
 */
export async function collectImportance(model: FilePath, options: CollectOptions = {}): Promise<Statistics> {
  refuseSurplus(arguments.length, 2, 'collectImportance(model, options)');
  const path = pathOf(model, 'the model', 'a model folder');
  const { importance, seed, tokens, head, threads, signal, onProgress } = resolve(options);
  signal?.throwIfAborted();
  if (typeof importance === 'string' && fileOfText(importance) === undefined && !isMade(importance))
    return readStatistics(importance);
  if ((await containerNameOf(path)) === 'onnx') {
    const source = await openSource(path);
    try {
      const { collectGraphs } = await import('./graphs/collect.js');
      return await collectGraphs(source, { importance, seed, tokens, threads, signal, onProgress });
    } finally {
      await source.close();
    }
  }
  const reader = await openReader(path, { threads, signal });
  try {
    const texts = await textsFor(reader, { importance, seed, tokens, threads, signal, onProgress });
    await giveBack();
    const meanSquares = await collectFrom(reader, texts, { head, signal, onProgress });
    const kind = typeof importance === 'string' && isMade(importance) ? importance : 'text';
    return { source: kind, tokens: texts.reduce((sum, { length }) => sum + length, 0), meanSquares };
  } finally {
    await reader.close();
  }
}

interface Resolved extends Pick<CollectOptions, 'threads' | 'signal' | 'onProgress'> {
  readonly importance: ImportanceSource;
  readonly seed: number;
  readonly tokens: number;
  readonly head: boolean;
}

/** What decides the texts. */
export type TextOptions = Omit<Resolved, 'head'>;

const isMade = (importance: string) => importance === 'random' || importance === 'own';

/** The texts that the model is to read. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for its own text where it writes none */
export async function textsFor(
  reader: Reader,
  { importance, seed, tokens, threads, signal, onProgress }: TextOptions,
): Promise<readonly Uint32Array[]> {
  const { path, config, kind } = reader;
  if (importance === 'random') {
    const progress = (done: number, total: number) => onProgress?.({ phase: 'expecting', done, total });
    return likelyTexts(reader, { tokens, seed, signal, progress });
  }
  if (importance === 'own') {
    if (kind === 'encoder') {
      const message = `Expected a model that writes text, for importance own, got ${plain(path)}, an encoder`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. random needs none; text:<file> names one.`);
    }
    const progress = (done: number) => onProgress?.({ phase: 'writing', done, total: tokens });
    return ownTexts(path, { tokens, seed, threads, signal, progress });
  }
  if (typeof importance !== 'string' && 'inputs' in importance) {
    const message = `Expected importance of ${plain(path)} to be random, own, a text or a file of statistics, got inputs, which graphs of ONNX models have`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}.`);
  }
  const file = typeof importance === 'string' ? fileOfText(importance) : undefined;
  const text = typeof importance === 'string' ? await textOfFile(file!) : importance.text;
  const run = { tokens, use: 'for importance', signal };
  if (kind === 'encoder') return sentencesOf(path, text, { ...run, config });
  return cutTexts(await encodeText(path, text, run), tokens, config);
}

/** Runs texts through the model. */
async function collectFrom(
  reader: Reader,
  texts: readonly Uint32Array[],
  { head, signal, onProgress }: Pick<Resolved, 'head' | 'signal' | 'onProgress'>,
): Promise<ReadonlyMap<string, Float32Array>> {
  const squares = new Squares();
  const total = reader.count * texts.reduce((sum, { length }) => sum + length, 0);
  const report = (done: number) => onProgress?.({ phase: 'reading', done, total });
  report(0);
  await reader.read(texts, squares.add, { head, signal, report });
  return squares.take();
}

function resolve(options: CollectOptions): Resolved {
  if (typeof options !== 'object' || options === null) throw invalid('the options', 'an object', options);
  rejectUnknownOptions(options, ['importance', 'seed', 'tokens', 'head', 'threads', 'signal', 'onProgress']);
  const { importance = 'random', seed, tokens, head = true, threads, signal, onProgress } = options;
  for (const [name, value] of Object.entries({ importance, seed, tokens })) {
    const { accepts, expected } = IMPORTANCE_OPTIONS[name as 'seed'];
    if (value !== undefined && !accepts(value)) throw invalid(name, expected, value);
  }
  if (importance === 'auto' || importance === 'none')
    throw invalid('importance', 'random, own, text:<file>, a file of statistics, { text } or { inputs }', importance);
  if (typeof head !== 'boolean') throw invalid('head', 'true or false', head);
  checkSignal(signal);
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalid('onProgress', 'a function', onProgress);
  const defaults = { seed: IMPORTANCE_OPTIONS.seed.default, tokens: IMPORTANCE_OPTIONS.tokens.default };
  return {
    ...{ importance, seed: seed ?? defaults.seed, tokens: tokens ?? defaults.tokens },
    ...{ head, threads, signal, onProgress },
  };
}

function invalid(name: string, expected: string, got: unknown): HqqError {
  return new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be ${expected}, got ${show(got)}.`);
}
