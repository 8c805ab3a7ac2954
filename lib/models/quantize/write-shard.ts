import * as fs from 'node:fs/promises';
import { activeBackend } from '../../backend/index.js';
import { resolveThreads } from '../../compute/run.js';
import type { Layout, TensorSource } from '../../containers/container.js';
import { containerNamed } from '../../containers/list.js';
import { schemeNamed } from '../../schemes/list.js';
import type { ConversionRun } from '../options.js';
import { Counter, makeSlots, Stopwatch } from '../stream/transfer.js';
import { changedEnvelope, type ModelPlan, type ShardPlan, shardLayout } from './plan.js';
import { type Importance, type LayerResult, quantizeShard, type ShardRun } from './quantize-shard.js';
import { Rooms } from './windows.js';

/** A shard that was written. */
interface WrittenShard {
  readonly layout: Layout;
  readonly results: readonly LayerResult[];
}

/** What work on `shards` of a plan shares. */
export function shardRun(
  source: TensorSource,
  plan: ModelPlan,
  shards: readonly ShardPlan[],
  { signal, onProgress }: ConversionRun,
  threads: number | undefined,
  importance?: Importance,
): ShardRun {
  const layers = shards.flatMap((shard) => shard.layers);
  const copies = shards.reduce(
    (sum, shard) => sum + shard.copies.filter((name) => bytesOf(source, name) > 0).length,
    0,
  );
  const weights = layers.reduce((sum, { site: { shape } }) => sum + shape[0] * shape[1], 0);
  return {
    source,
    envelope: changedEnvelope(source, plan),
    scheme: schemeNamed(plan.scheme),
    slots: makeSlots(1), // the one more only copies
    rooms: new Rooms(),
    backend: activeBackend(),
    threads: resolveThreads(threads),
    counter: new Counter(onProgress, weights, layers.length + copies),
    stopwatch: new Stopwatch(),
    signal,
    importance,
  };
}

function bytesOf({ entries }: TensorSource, name: string): number {
  const { begin, end } = entries.get(name)!;
  return end - begin;
}

/**
 * Writes one shard to `path`, which must not exist, with permissions `mode`: at its size, which is known, and once. A failure leaves
 * nothing.
 *
 * @param settled with what its weights decide: `probeShard`
 * @param known its layout, where somebody has it
 */
export async function writeSettled(
  plan: ModelPlan,
  settled: ShardPlan,
  path: string,
  mode: number | undefined,
  run: ShardRun,
  known?: Layout,
): Promise<WrittenShard> {
  const layout = known ?? (await shardLayout(run.source, run.envelope, plan, settled));
  const sink = await containerNamed(plan.container).create(path, layout, mode);
  try {
    const results = await quantizeShard(settled, sink, run);
    await sink.finish();
    return { layout, results };
  } catch (error) {
    await sink.abandon();
    await fs.rm(path, { force: true }).catch(() => {}); // who made the folder clears it
    throw error;
  }
}
