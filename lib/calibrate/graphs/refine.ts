import { activeBackend } from '../../backend/index.js';
import { resolveThreads } from '../../compute/run.js';
import type { TensorSource } from '../../containers/container.js';
import type { RunnableGraph, Tap } from '../../containers/runnable.js';
import { allocating } from '../../messages/allocating.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import { Found, type Refined } from '../refine/found.js';
import { addProducts } from '../refine/grams.js';
import { Overlaid } from '../refine/overlaid.js';
import { type Place, refineLayers, type SeenLayer } from '../refine/refine-layers.js';
import type { GraphCollectOptions } from './collect.js';
import { loadOnnxRuntime } from './engine.js';
import { materialFor, refuseOwn } from './material.js';
import { GraphRun } from './run.js';

/** How a graph is refined. */
interface GraphRefineOptions extends Omit<GraphCollectOptions, 'only'> {
  /** Where weights lie meanwhile. */
  readonly folder: string;
}

/** What went in where a graph is tapped, and the layers that it went into. */
interface Gram {
  readonly tap: Tap;
  readonly sums: Float32Array;
}

/**
 * As `refineModel`, of a graph that onnxruntime runs part by part: layers are refined when all of their inputs have been seen.
 *
 * @throws {HqqError} as `collectGraphs`
 */
export async function refineGraphs(
  source: TensorSource,
  layers: readonly PlannedLayer[],
  { folder, ...options }: GraphRefineOptions,
): Promise<Refined> {
  const { importance: from, threads, signal, onProgress } = options;
  refuseOwn(source, from);
  const ort = loadOnnxRuntime();
  const machine = { backend: activeBackend(), threads: resolveThreads(threads), signal };
  const byName = new Map<string, PlannedLayer[]>();
  for (const layer of layers) {
    const { name, original = name } = layer.site;
    byName.set(original, [...(byName.get(original) ?? []), layer]);
  }
  const graphs = await source.graphs!(new Set(byName.keys()));
  const found = new Found();
  const refined = await Overlaid.over(source, folder);
  try {
    for (const [index, graph] of graphs.entries()) {
      if (graph.parts.length === 0 && graph.given.length === 0) continue;
      const run = new GraphRun(ort, graph, threads);
      const { feeds, tokens } = await materialFor(source, run, graph, index, options);
      const total = tokens * Math.max(1, graph.parts.length);
      const grams = new Map<string, Gram>();
      const left = inputsOf(graph);
      await run.run({
        ...{ feeds, given: graph.given, parts: graph.parts, signal },
        report: (share) => onProgress?.({ phase: 'reading', done: Math.round(share * total), total }),
        async look(tap, tensor) {
          const { value, inFeatures: width } = tap;
          const x = run.rows(value, tensor, width);
          if (x.length === 0) return;
          let gram = grams.get(value);
          if (gram === undefined) {
            const sums = allocating(`${width} x ${width} sums of products`, () => new Float32Array(width * width));
            grams.set(value, (gram = { tap, sums }));
          }
          await addProducts(gram.sums, x, x.length / width, machine);
        },
        async looked(taps) {
          const place = { source, refined, machine };
          found.add(await refineSeen(taps, grams, left, byName, place));
        },
      });
    }
    return { refined, ...found.of(layers) };
  } catch (error) {
    await refined.close();
    throw error;
  }
}

/** The values that go into each layer of a graph. */
function inputsOf({ given, parts }: RunnableGraph): ReadonlyMap<string, Set<string>> {
  const inputs = new Map<string, Set<string>>();
  for (const { value, layers } of [...given, ...parts.flatMap(({ taps }) => taps)])
    for (const name of layers) inputs.set(name, (inputs.get(name) ?? new Set()).add(value));
  return inputs;
}

/** Refines the layers whose last inputs these were, and lets go of sums that no layer waits for any more. */
async function refineSeen(
  taps: readonly Tap[],
  grams: Map<string, Gram>,
  left: ReadonlyMap<string, Set<string>>,
  byName: ReadonlyMap<string, readonly PlannedLayer[]>,
  place: Place,
): Promise<readonly SeenLayer[]> {
  const seen = new Set(taps.map(({ value }) => value));
  // Layers of the same inputs share a factorization.
  const together = new Map<string, { readonly inputs: readonly string[]; readonly layers: PlannedLayer[] }>();
  for (const name of new Set(taps.flatMap(({ layers }) => layers))) {
    const inputs = [...left.get(name)!];
    const waits = inputs.some((value) => !seen.has(value) && !grams.has(value));
    if (waits || inputs.every((value) => !grams.has(value))) continue;
    const key = JSON.stringify(inputs.sort());
    const own = together.get(key) ?? { inputs, layers: [] };
    own.layers.push(...(byName.get(name) ?? []));
    together.set(key, own);
    left.get(name)!.clear();
  }
  const done: SeenLayer[] = [];
  for (const { inputs, layers } of together.values()) {
    const all = inputs.flatMap((value) => grams.get(value) ?? []);
    const [first, ...more] = all as [Gram, ...Gram[]];
    const sums = more.length === 0 ? first.sums : Float32Array.from(first.sums);
    for (const gram of more) for (let i = 0; i < sums.length; i++) sums[i] = sums[i]! + gram.sums[i]!;
    done.push(...(await refineLayers(layers, { width: first.tap.inFeatures, sums }, place)));
  }
  const waiting = new Set([...left.values()].flatMap((values) => [...values]));
  for (const value of grams.keys()) if (!waiting.has(value)) grams.delete(value);
  return done;
}
