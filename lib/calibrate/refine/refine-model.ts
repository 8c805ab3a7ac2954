import { activeBackend } from '../../backend/index.js';
import { resolveThreads } from '../../compute/run.js';
import type { TensorSource } from '../../containers/container.js';
import type { ImportanceSource } from '../../models/importance-options.js';
import { openBlockSource } from '../../runtime/source/block-source.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import { type CollectProgress, textsFor } from '../collect.js';
import { HEAD, moduleOf } from '../module-of.js';
import { languageReader, showHeadInputs } from '../reader.js';
import { Squares } from '../squares.js';
import { Found, type Refined } from './found.js';
import { Grams } from './grams.js';
import { Overlaid } from './overlaid.js';
import { refineLayers } from './refine-layers.js';

/** How a model is refined. */
interface RefineOptions {
  /** `own`, or a text. */
  readonly importance: ImportanceSource;
  readonly seed: number;
  readonly tokens: number;
  readonly threads: number | undefined;
  /** Where weights lie meanwhile. */
  readonly folder: string;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: CollectProgress) => void) | undefined;
}

/**
 * Lets a model read a text, block by block, and gives each layer the weights that its groups are to be chosen for, so that the errors of
 * each group are met by those after it. Inputs are those of the model as it is, not of what was quantized before: meeting that drift, too,
 * was tried, and diverges.
 *
 * @throws {HqqError} as `collectImportance`
 */
export async function refineModel(
  source: TensorSource,
  layers: readonly PlannedLayer[],
  { importance: from, seed, tokens, threads, folder, signal, onProgress }: RefineOptions,
): Promise<Refined> {
  const machine = { backend: activeBackend(), threads: resolveThreads(threads), signal };
  const blocks = await openBlockSource(source.path, { threads, signal });
  const waiting = new Map(layers.map((layer) => [moduleOf(layer, source), layer]));
  const found = new Found();
  const refined = await Overlaid.over(source, folder).catch(async (error: unknown) => {
    await blocks.close();
    throw error;
  });
  try {
    const texts = await textsFor(languageReader(blocks), {
      importance: from,
      seed,
      tokens,
      threads,
      signal,
      onProgress,
    });
    const hidden: Float32Array[] = [];
    for (const ids of texts) hidden.push(await blocks.embed(ids, { signal }));
    const perBlock = texts.reduce((sum, { length }) => sum + length, 0);
    const report = (done: number) => onProgress?.({ phase: 'reading', done, total: perBlock * blocks.count });
    report(0);
    for await (const block of blocks.blocks({ signal })) {
      const grams = new Grams(machine);
      const before = block.index * perBlock;
      const run = { out: hidden, tap: grams.add, signal };
      await block.forward(hidden, { ...run, onProgress: ({ rowsDone }) => report(before + rowsDone) });
      for (const gram of grams.all) {
        const own = gram.modules.flatMap((module) => waiting.get(module) ?? []);
        found.add(await refineLayers(own, gram, { source, refined, machine }));
      }
    }
    const head = waiting.get(HEAD);
    if (head !== undefined) {
      const squares = new Squares();
      await showHeadInputs(blocks, hidden, squares.add, signal);
      for (const importance of squares.take().values())
        if (importance.every(Number.isFinite)) found.add([{ name: head.site.name, importance, fed: false }]);
    }
    return { refined, ...found.of(layers) };
  } catch (error) {
    await refined.close();
    throw error;
  } finally {
    await blocks.close();
  }
}
