import { activeBackend } from '../../backend/index.js';
import { resolveThreads } from '../../compute/run.js';
import type { TensorSource } from '../../containers/container.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import { Found, type Refined } from '../refine/found.js';
import { Overlaid } from '../refine/overlaid.js';
import { refineLayers } from '../refine/refine-layers.js';
import type { GraphCollectOptions } from './collect.js';
import { loadOnnxRuntime } from './engine.js';
import { GramSets } from './gram-sets.js';
import { materialFor, refuseOwn } from './material.js';
import { GraphRun } from './run.js';

/** How a graph is refined. */
interface GraphRefineOptions extends Omit<GraphCollectOptions, 'only'> {
  /** Where weights lie meanwhile. */
  readonly folder: string;
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
  const ort = loadOnnxRuntime(options.without);
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
      const sets = new GramSets(graph, machine);
      await run.run({
        ...{ feeds, given: graph.given, parts: graph.parts, signal },
        report: (share) => onProgress?.({ phase: 'reading', done: Math.round(share * total), total }),
        async look(tap, tensor) {
          await sets.add(tap, run.rows(tap.value, tensor, tap.inFeatures));
        },
        async looked(taps) {
          for (const { names, ...sums } of sets.ready(taps)) {
            const own = names.flatMap((name) => byName.get(name) ?? []);
            found.add(await refineLayers(own, sums, { source, refined, machine }));
          }
          sets.release();
        },
      });
    }
    return { refined, ...found.of(layers) };
  } catch (error) {
    await refined.close();
    throw error;
  }
}
