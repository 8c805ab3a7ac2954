import type { TensorSource } from '../../containers/container.js';
import type { RunnableGraph } from '../../containers/runnable.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { GraphTensor, ImportanceSource } from '../../models/importance-options.js';
import { cutTexts, textLengths } from '../ids.js';
import { likelyTexts } from '../likely.js';
import { encodeText, fileOfText, textOfFile } from '../text.js';
import { expectedOf } from './expected.js';
import { fixedLength, idsOf, numbersFor, randomFeeds, seedFor } from './feeds.js';
import type { Feeds, GraphRun } from './run.js';

/** Where what a graph is given comes from. */
interface MaterialOptions {
  readonly importance: ImportanceSource;
  readonly seed: number;
  readonly tokens: number;
  readonly signal: AbortSignal | undefined;
}

/** What a graph is given, one after the other, and how many tokens, or runs, these are. */
interface Material {
  readonly feeds: Iterable<Feeds>;
  readonly tokens: number;
}

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a text that a graph would have to write */
export function refuseOwn({ path }: TensorSource, importance: ImportanceSource): void {
  if (importance !== 'own') return;
  const message = `Expected a model that hqq/runtime runs, for importance own, got ${plain(path)}, an ONNX model`;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. random needs none; text:<file> names one.`);
}

/** What a graph is given. */
export async function materialFor(
  source: TensorSource,
  run: GraphRun,
  graph: RunnableGraph,
  index: number,
  { importance, seed, tokens, signal }: MaterialOptions,
): Promise<Material> {
  const { path, inputs } = graph;
  if (typeof importance === 'object' && 'inputs' in importance) {
    const given = importance.inputs.map((own) => checked(path, inputs, own));
    return { feeds: given, tokens: given.length };
  }
  const vocabSize = idsOf(inputs)?.rows;
  const maxPositions = fixedLength(inputs) ?? graph.maxPositions ?? Infinity;
  const random = numbersFor(seed, index);
  const feedsOf = function* (texts: readonly Uint32Array[]) {
    for (const ids of texts) yield randomFeeds(path, inputs, { length: ids.length, random, ids });
  };
  if (importance === 'random') {
    if (vocabSize !== undefined && graph.logits !== undefined) {
      const expected = (texts: readonly Uint32Array[]) =>
        expectedOf(run, graph, vocabSize, texts, { seed, index, signal });
      const reader = { config: { vocabSize, maxPositions }, expected };
      return { feeds: feedsOf(await likelyTexts(reader, { tokens, seed: seedFor(seed, index), signal })), tokens };
    }
    const lengths = textLengths(tokens, { vocabSize: 0, maxPositions });
    const feeds = function* () {
      for (const length of lengths) yield randomFeeds(path, inputs, { length, random });
    };
    return { feeds: feeds(), tokens };
  }
  if (vocabSize === undefined) {
    const message = `Expected a graph that reads ids of tokens, for importance from a text, got ${plain(path)}, which does not`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. random needs no text.`);
  }
  const text = typeof importance === 'string' ? await textOfFile(fileOfText(importance)!) : importance.text;
  const ids = await encodeText(source.path, text, { tokens, use: 'for importance', signal });
  const texts = cutTexts(ids, tokens, { vocabSize, maxPositions });
  return { feeds: feedsOf(texts), tokens: Math.min(tokens, ids.length) };
}

/** Inputs that somebody gives. @throws {HqqError} `ERR_INVALID_OPTION` for those that the graph has not */
function checked(path: string, inputs: RunnableGraph['inputs'], given: Readonly<Record<string, GraphTensor>>): Feeds {
  const names = inputs.map(({ name }) => name);
  const wrong = (what: string) => {
    const known = names.map((name) => quote(name)).join(', ');
    return new HqqError('ERR_INVALID_OPTION', `Expected inputs of ${plain(path)} (${known}), got ${what}.`);
  };
  const missing = names.find((name) => given[name] === undefined);
  if (missing !== undefined) throw wrong(`none for ${quote(missing)}`);
  const extra = Object.keys(given).find((name) => !names.includes(name));
  if (extra !== undefined) throw wrong(`${quote(extra)}, too`);
  return given;
}
