import { quantize } from '../compute/quantize.js';
import type { QuantizedTensor } from '../matrix/weight.js';
import { openBlockSource } from '../runtime/source/block-source.js';
import type { OpenBlock } from '../runtime/source/open-block.js';
import type { PlannedLayer } from '../schemes/scheme.js';
import { type CollectOptions, type TextOptions, textsFor } from './collect.js';
import { languageReader } from './reader.js';
import { Squares } from './squares.js';
import type { Statistics } from './statistics.js';

/** What is collected, with every default filled in. */
type SequenceOptions = TextOptions & Required<Pick<CollectOptions, 'head'>>;

/**
 * Importance as `collectImportance` finds it, but of each block when those before it have been quantized: in a block, what goes into its
 * layers while they are floats; into the next block, what comes out when they are codes, found with that. Of one block its weights and its
 * codes are in memory.
 *
 * @param layers By module: how they are quantized. What is missing stays as it is.
 * @throws {HqqError} as `collectImportance`
 */
export async function collectInSequence(
  path: string,
  layers: ReadonlyMap<string, PlannedLayer>,
  { head, ...options }: SequenceOptions,
): Promise<Statistics> {
  const { importance, threads, signal, onProgress } = options;
  const source = await openBlockSource(path, { threads, signal });
  try {
    const texts = await textsFor(languageReader(source), options);
    const tokens = texts.reduce((sum, { length }) => sum + length, 0);
    const report = (done: number) => onProgress?.({ phase: 'reading', done, total: tokens * source.count });
    report(0);
    const hidden: Float32Array[] = [];
    for (const ids of texts) hidden.push(await source.embed(ids, { signal }));
    const meanSquares = new Map<string, Float32Array>();
    const squares = new Squares();
    for await (const block of source.blocks({ signal })) {
      await block.forward(hidden, { tap: squares.add, signal });
      const own = squares.take();
      for (const [module, values] of own) meanSquares.set(module, values);
      const coded = await block.replace(await codesOf(block, layers, own, { threads, signal }), { threads, signal });
      await coded.forward(hidden, { out: hidden, signal });
      report(tokens * (block.index + 1));
    }
    if (head) {
      const last = await source.head({ signal });
      for (const rows of hidden) await last.inputs(rows, squares.add, { signal });
      for (const [module, values] of squares.take()) meanSquares.set(module, values);
    }
    const kind = importance === 'random' || importance === 'own' ? importance : 'text';
    return { source: kind, tokens, meanSquares };
  } finally {
    await source.close();
  }
}

/** Quantizes the layers of a block, as they will be in the output. */
async function codesOf(
  block: OpenBlock,
  layers: ReadonlyMap<string, PlannedLayer>,
  importance: ReadonlyMap<string, Float32Array>,
  run: Pick<CollectOptions, 'threads' | 'signal'>,
): Promise<Record<string, QuantizedTensor>> {
  const codes: Record<string, QuantizedTensor> = {};
  for (const { module, shape } of block.linears) {
    const layer = layers.get(module);
    // One that the file keeps together with others is read as it is.
    if (layer === undefined || layer.site.shape[0] !== shape[0] || layer.site.shape[1] !== shape[1]) continue;
    const data = await block.weight(module, run);
    const own = importance.get(module);
    // The group size of the plan says what a granularity stands for: both at once are refused.
    const config = { ...layer.form.config, granularity: 'group' as const };
    codes[module] = await quantize({ data, dtype: 'float32', shape }, config, {
      ...run,
      ...(own && { importance: own }),
    });
  }
  return codes;
}
