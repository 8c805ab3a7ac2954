import type { TensorSource } from '../../containers/container.js';
import type { Tap } from '../../containers/runnable.js';
import type { ImportanceSource } from '../../models/importance-options.js';
import { Squares } from '../squares.js';
import type { Statistics } from '../statistics.js';
import { loadOnnxRuntime, type OrtTensor } from './engine.js';
import { materialFor, refuseOwn } from './material.js';
import { GraphRun } from './run.js';

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
  /** How its caller does without: as `loadOnnxRuntime` has it. */
  readonly without?: string | undefined;
}

/** @throws {HqqError} `ERR_DEPENDENCY` without onnxruntime; `ERR_CHECKPOINT_CONTENT` for a graph that it does not run */
export async function collectGraphs(source: TensorSource, options: GraphCollectOptions): Promise<Statistics> {
  const { importance, only, signal } = options;
  refuseOwn(source, importance);
  const ort = loadOnnxRuntime(options.without);
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
