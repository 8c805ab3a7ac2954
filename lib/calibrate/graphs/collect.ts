import { bytesOf, widenBytes } from '../../compute/floats.js';
import type { TensorSource } from '../../containers/container.js';
import type { GraphPart, RunnableGraph, Tap, ValueKind } from '../../containers/runnable.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { GraphTensor, ImportanceSource } from '../../models/importance-options.js';
import { textLengths } from '../ids.js';
import { Squares } from '../squares.js';
import type { Statistics } from '../statistics.js';
import { encodeText, fileOfText, textOfFile } from '../text.js';
import { loadOnnxRuntime, type Ort, type OrtSession, type OrtTensor } from './engine.js';
import { fixedLength, numbersFor, randomFeeds, readsIds } from './feeds.js';

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

type Feeds = Readonly<Record<string, OrtTensor>>;

/** What a graph is given, one after the other, and how many tokens, or runs, these are. */
interface Material {
  readonly feeds: Iterable<Feeds>;
  readonly count: number;
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
    const material = await materialFor(source, graph, index, options);
    tokens += material.tokens;
    const run = new GraphRun(ort, graph, squares, options.threads);
    const total = material.tokens * Math.max(1, graph.parts.length);
    const report = (share: number) =>
      options.onProgress?.({ phase: 'reading', done: Math.round(share * total), total });
    await run.run(material, report, signal);
  }
  const kind = typeof importance !== 'string' ? ('inputs' in importance ? 'inputs' : 'text') : importance;
  return { source: kind === 'random' || kind === 'inputs' ? kind : 'text', tokens, meanSquares: squares.take() };
}

async function materialFor(
  source: TensorSource,
  { path, inputs, maxPositions }: RunnableGraph,
  index: number,
  { importance, seed, tokens, signal }: GraphCollectOptions,
): Promise<Material> {
  if (typeof importance === 'object' && 'inputs' in importance) {
    const given = importance.inputs.map((own) => checked(path, inputs, own));
    return { feeds: given, count: given.length, tokens: given.length };
  }
  const limits = { vocabSize: 0, maxPositions: fixedLength(inputs) ?? maxPositions ?? Infinity };
  const random = numbersFor(seed, index);
  if (importance === 'random') {
    const lengths = textLengths(tokens, limits);
    const feeds = function* () {
      for (const length of lengths) yield randomFeeds(path, inputs, { length, random });
    };
    return { feeds: feeds(), count: lengths.length, tokens };
  }
  if (!readsIds(inputs)) {
    const message = `Expected a graph that reads ids of tokens, for importance from a text, got ${plain(path)}, which does not`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. random needs no text.`);
  }
  const text = typeof importance === 'string' ? await textOfFile(fileOfText(importance)!) : importance.text;
  const ids = await encodeText(source.path, text, tokens, signal);
  const lengths = textLengths(Math.min(tokens, ids.length), limits);
  const feeds = function* () {
    let at = 0;
    for (const length of lengths) {
      const own = Uint32Array.from(ids.slice(at, at + length));
      at += length;
      yield randomFeeds(path, inputs, { length, random, ids: own });
    }
  };
  return { feeds: feeds(), count: lengths.length, tokens: Math.min(tokens, ids.length) };
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

/** One graph as it is run. */
class GraphRun {
  readonly #ort: Ort;
  readonly #graph: RunnableGraph;
  readonly #squares: Squares;
  readonly #threads: number | undefined;

  constructor(ort: Ort, graph: RunnableGraph, squares: Squares, threads: number | undefined) {
    this.#ort = ort;
    this.#graph = graph;
    this.#squares = squares;
    this.#threads = threads;
  }

  async run(
    { feeds, count }: Material,
    report: (share: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { parts, given } = this.#graph;
    const texts: Map<string, OrtTensor>[] = [];
    for (const own of feeds) {
      const values = new Map<string, OrtTensor>();
      for (const [name, { type, data, dims }] of Object.entries(own)) {
        const tensor = await this.#attempt(async () => new this.#ort.Tensor(type, data, dims));
        values.set(name, tensor);
        for (const tap of given) if (tap.value === name) this.#look(tap, tensor);
      }
      texts.push(values);
    }
    report(0);
    const kinds = new Map<string, ValueKind>();
    for (const [i, part] of parts.entries()) {
      signal?.throwIfAborted();
      const session = await this.#open(part, kinds);
      try {
        for (const [at, values] of texts.entries()) {
          signal?.throwIfAborted();
          await this.#step(session, part, values, kinds);
          report((i + (at + 1) / count) / parts.length);
        }
      } finally {
        await session.release();
      }
    }
  }

  async #open(part: GraphPart, kinds: ReadonlyMap<string, ValueKind>): Promise<OrtSession> {
    const bytes = await part.model(kinds);
    const extra = { session: { model_external_initializers_file_folder_path: this.#graph.folder } };
    const threads = this.#threads === undefined ? {} : { intraOpNumThreads: this.#threads };
    // Errors come as exceptions, too; warnings of a part are none of the user's.
    const options = { ...threads, extra, logSeverityLevel: 4, graphOptimizationLevel: 'basic' };
    return this.#attempt(() => this.#ort.InferenceSession.create(bytes, options));
  }

  async #step(
    session: OrtSession,
    { inputs, outputs, last, taps }: GraphPart,
    values: Map<string, OrtTensor>,
    kinds: Map<string, ValueKind>,
  ): Promise<void> {
    const feeds = Object.fromEntries(inputs.map((name) => [name, values.get(name)!]));
    const made = await this.#attempt(() => session.run(feeds, outputs));
    for (const name of outputs) {
      const tensor = made[name]!;
      values.set(name, tensor);
      kinds.set(name, { type: tensor.type, rank: tensor.dims.length });
    }
    for (const tap of taps) this.#look(tap, made[tap.value]!);
    for (const name of last) values.delete(name);
  }

  #look({ layers, inFeatures, value }: Tap, { type, data, dims }: OrtTensor): void {
    const count = dims.reduce((product, size) => product * size, 1);
    if (dims.at(-1) !== inFeatures)
      throw this.#refusal(`value ${quote(value)} has the size [${dims.join(', ')}], where layers take ${inFeatures}`);
    if (count === 0) return;
    const x = new Float32Array(count);
    if (type === 'float32') x.set(data as Float32Array);
    else if (type === 'float16') widenBytes(bytesOf(data as Uint16Array), type, x);
    else throw this.#refusal(`value ${quote(value)} is of type ${type}`);
    for (const module of layers) this.#squares.add({ module, rows: count / inFeatures, x });
  }

  async #attempt<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      if (cause instanceof HqqError) throw cause;
      const said = (cause instanceof Error ? cause.message : String(cause)).split('\n', 1)[0]!;
      throw this.#refusal(`onnxruntime says: ${plain(said.replace(/\.$/, ''))}`, cause);
    }
  }

  #refusal(what: string, cause?: unknown): HqqError {
    const message = `${plain(this.#graph.path)} does not run on inputs that are made for importance: ${what}`;
    return new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${message}. Give inputs of it (importance: { inputs }), or leave importance out (--importance none).`,
      { cause },
    );
  }
}
