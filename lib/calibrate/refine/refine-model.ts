import { activeBackend } from '../../backend/index.js';
import { narrowBytes } from '../../compute/floats.js';
import { widenBytesLater } from '../../compute/later.js';
import type { Machine } from '../../compute/run.js';
import { resolveThreads } from '../../compute/run.js';
import type { TensorSource } from '../../containers/container.js';
import { DTYPES } from '../../matrix/dtype.js';
import { allocating } from '../../messages/allocating.js';
import type { ImportanceSource } from '../../models/importance-options.js';
import { openBlockSource } from '../../runtime/source/block-source.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import { type CollectProgress, textsFor } from '../collect.js';
import { moduleOfGgml } from '../ggml-names.js';
import { languageReader } from '../reader.js';
import { factorize } from './factor.js';
import { feedBack } from './feed-back.js';
import { type Gram, Grams } from './grams.js';
import { Overlaid } from './overlaid.js';

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

interface Refined {
  /** The model with the weights that are to be quantized; to be closed. */
  readonly refined: TensorSource;
  /** What their errors count, by name of the layer. */
  readonly importance: ReadonlyMap<string, Float32Array>;
  /** Layers that have no error feedback. */
  readonly without: readonly string[];
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
  const waiting = new Map(layers.map((layer) => [moduleOfGgml(layer.site.name), layer]));
  const importance = new Map<string, Float32Array>();
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
        const done = await refineLayers(own, gram, { source, refined, machine });
        for (const [layer, values] of done) importance.set(layer.site.name, values);
      }
    }
    const without = layers.map(({ site }) => site.name).filter((name) => !importance.has(name));
    return { refined, importance, without };
  } catch (error) {
    await refined.close();
    throw error;
  } finally {
    await blocks.close();
  }
}

interface Place {
  readonly source: TensorSource;
  readonly refined: Overlaid;
  readonly machine: Machine;
}

/** Refines the layers of one input: those of the same group size share a factorization. */
async function refineLayers(
  layers: readonly PlannedLayer[],
  gram: Gram,
  { source, refined, machine }: Place,
): Promise<readonly (readonly [PlannedLayer, Float32Array])[]> {
  const done: [PlannedLayer, Float32Array][] = [];
  const fit = layers.filter(isFit);
  for (const groupSize of new Set(fit.map(({ form }) => form.config.groupSize!))) {
    const alike = fit.filter(({ form }) => form.config.groupSize === groupSize);
    const factor = await factorize(gram.sums, gram.width, groupSize, machine);
    for (const layer of alike) {
      const { weight } = layer.site;
      const dtype = weight.type.float!;
      const count = layer.site.shape[0] * layer.site.shape[1];
      const bytes = allocating('the weights of a layer', () => new Uint8Array(count * DTYPES[dtype].bytes));
      await source.read(weight, 0, bytes, machine.signal);
      const weights = allocating('the weights of a layer', () => new Float32Array(count));
      await widenBytesLater(bytes, dtype, weights, machine);
      narrowBytes(await feedBack(weights, factor, layer.form.config, machine), dtype, bytes);
      await refined.put(weight, bytes);
      done.push([layer, factor.importance]);
    }
  }
  return done;
}

/** Whether a layer's groups are parts of rows, several a row, and its weight a whole tensor that lies as it is used. */
function isFit({ site, form }: PlannedLayer): boolean {
  const { groupSize, axis } = form.config;
  const plain = site.weight.type.float !== undefined && site.stored === 'out-in' && site.partOf === undefined;
  return plain && axis === 1 && groupSize !== null && site.shape[1] % groupSize === 0 && groupSize < site.shape[1];
}
