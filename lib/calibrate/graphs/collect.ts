import type { TensorSource } from '../../containers/container.js';
import type { RunnableGraph, Tap } from '../../containers/runnable.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { GraphTensor, ImportanceSource } from '../../models/importance-options.js';
import { cutTexts, textLengths } from '../ids.js';
import { likelyTexts } from '../likely.js';
import { Squares } from '../squares.js';
import type { Statistics } from '../statistics.js';
import { encodeText, fileOfText, textOfFile } from '../text.js';
import { loadOnnxRuntime, type OrtTensor } from './engine.js';
import { expectedOf } from './expected.js';
import { fixedLength, idsOf, numbersFor, randomFeeds, seedFor } from './feeds.js';
import { type Feeds, GraphRun } from './run.js';

// Statistics of a graph: it is run in onnxruntime, part by part, each with few weights, and what goes into its layers is looked at.

/** How statistics of graphs are collected. */
export interface GraphCollectOptions {
  readonly importance: ImportanceSource;
  readonly seed: number;
  readonly tokens: number;
  readonly threads: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onProgress:
    | ((progress: { readonly phase: 'reading'; readonly done: number; readonly total: number }) => void)
    | undefined;
  /** Layers that are looked at. Absent: all. */
  readonly only?: ReadonlySet<string> | undefined;
}

/** What a graph is given, one after the other, and how many tokens, or runs, these are. */
interface Material {
  readonly feeds: Iterable<Feeds>;
  readonly tokens: number;
}

/** @throws {HqqError} `ERR_DEPENDENCY` without onnxruntime; `ERR_CHECKPOINT_CONTENT` for a graph that it does not run */
export async function collectGraphs(source: TensorSource, options: GraphCollectOptions): Promise<Statistics> {
  const { importance, only, signal } = options;
  if (importance === 'own') {
    const message = `Expected a model that hqq/runtime runs, for importance own, got ${plain(source.path)}, an ONNX model`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. random needs none; text:<file> names one.`);
  }
  const ort = loadOnnxRuntime();
  const graphs = await source.graphs!(only);
  const squares = new Squares();
  let tokens = 0;
  for (const [index, graph] of graphs.entries()) {
    if (graph.parts.length === 0 && graph.given.length === 0) continue;
    const run = new GraphRun(ort, graph, options.threads);
    const { feeds, tokens: own } = await materialFor(source, run, graph, index, options);
    tokens += own;
    const total = own * Math.max(1, graph.parts.length);
    await run.run({
      ...{ feeds, given: graph.given, parts: graph.parts, signal },
      report: (share) => options.onProgress?.({ phase: 'reading', done: Math.round(share * total), total }),
      look({ layers, inFeatures, value }: Tap, tensor: OrtTensor) {
        const x = run.rows(value, tensor, inFeatures);
        if (x.length === 0) return;
        for (const module of layers) squares.add({ module, rows: x.length / inFeatures, x });
      },
    });
  }
  const kind = typeof importance !== 'string' ? ('inputs' in importance ? 'inputs' : 'text') : importance;
  return { source: kind === 'random' || kind === 'inputs' ? kind : 'text', tokens, meanSquares: squares.take() };
}

async function materialFor(
  source: TensorSource,
  run: GraphRun,
  graph: RunnableGraph,
  index: number,
  { importance, seed, tokens, signal }: GraphCollectOptions,
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
  const ids = await encodeText(source.path, text, tokens, signal);
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
