import { basename, dirname, join, resolve } from 'node:path';
import type { Envelope, Layout, TensorSource } from '../../containers/container.js';
import { containerNamed } from '../../containers/list.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { checkApart, checkReplaceable } from '../../files/output-rules.js';
import { checkParent } from '../../files/parents.js';
import { type FilePath, pathOf } from '../../files/path.js';
import type { QuantConfig } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import { HqqError } from '../../messages/errors.js';
import type { ConversionRun, ModelOptions, ResolvedOptions } from '../options.js';
import { convertFolder, inputsOf } from '../output-folder.js';
import type { ModelReport } from '../report.js';
import { decodedNotes } from './decoded-source.js';
import { changedEnvelope, type ModelPlan, shardLayout } from './plan.js';
import { prepare } from './prepare.js';
import { ProbesAhead } from './probe-ahead.js';
import type { Importance, LayerResult } from './quantize-shard.js';
import { type Made, reportQuantized } from './report.js';
import { shardRun, writeSettled } from './write-shard.js';

export { MODEL_OPTIONS, type ModelOptions } from '../options.js';

/** What the errors of each layer's inputs count, where somebody knows it; and what people should know of that. */
export interface Weighing {
  readonly importance?: Importance;
  /** What it is from, for the report. */
  readonly source: string;
  readonly notes: readonly string[];
  /** The model with other weights in the place of those that are to be quantized; who asked closes it. Absent: its own. */
  readonly refined?: TensorSource;
  /** Called when the output is in its place: what was kept for another try is not needed any more. */
  readonly finished?: () => Promise<void>;
}

/**
 * Finds that, when it is known what is to be quantized; in a dry run its source. `folder` is where a file may lie meanwhile. This room has no model that
 * runs: who has one brings it.
 */
export type Weigh = (
  source: TensorSource,
  plan: ModelPlan,
  resolved: ResolvedOptions,
  folder: string,
) => Promise<Weighing>;

const NOT_WEIGHED: Weigh = async () => ({ source: 'none', notes: [] });

/** As lib/queue/entry.ts says, through which the package exports it; there with importance, and on many machines. */
export async function quantizeModel(
  from: FilePath,
  to: FilePath,
  options: QuantConfig & ModelOptions & ConversionRun = {},
  weigh: Weigh = NOT_WEIGHED,
): Promise<ModelReport> {
  const started = performance.now();
  const input = pathOf(from, 'the input');
  const output = pathOf(to, 'the output');
  const { source, layers, resolved, plan, notes: own = [] } = await prepare(input, output, options);
  try {
    const { model } = resolved;
    const made = model.dryRun
      ? await dryRun(source, plan, output, resolved, weigh)
      : await convert(source, plan, output, resolved, weigh);
    const seconds = (performance.now() - started) / 1000;
    const notes = [...own, ...(layers ? decodedNotes(layers, plan) : []), ...made.notes];
    return reportQuantized(
      source,
      plan,
      { input, output, dryRun: model.dryRun, requantized: layers !== undefined },
      { ...made, notes },
      seconds,
    );
  } finally {
    await source.close();
  }
}

/**
 * What would be made; nothing is written. An output that could never be is refused. What the user can still clear away, an
 * output that exists or a folder that may not be written to, is noted: nobody should have to make room for a plan.
 */
async function dryRun(
  source: TensorSource,
  plan: ModelPlan,
  output: string,
  resolved: ResolvedOptions,
  weigh: Weigh,
): Promise<Made> {
  const { force } = resolved.model;
  const parent = dirname(resolve(output));
  const { kind } = source;
  const made = containerNamed(plan.container);
  const obstacles: string[] = [];
  const attempt = <T>(check: Promise<T>): Promise<T | undefined> => {
    return check.catch((error: unknown) => {
      if (!(error instanceof HqqError)) throw error;
      obstacles.push(error.message);
      return undefined;
    });
  };
  const target = join((await attempt(checkParent(parent))) ?? parent, basename(resolve(output)));
  await checkApart(target, inputsOf(source), kind === 'file' ? made.beside : undefined);
  await checkReplaceable(target, kind, made, true);
  await attempt(checkReplaceable(target, kind, made, force));
  const unknown = { absError: NaN, squaredError: NaN, squaredWeight: NaN, iterations: 0, badIndex: -1 };
  const weighed = await weigh(source, plan, resolved, parent);
  const notes = obstacles.map((message) => `As things are, the run itself would fail. ${message}`);
  return {
    importance: weighed.source,
    notes: [...notes, ...weighed.notes],
    results: plan.shards.flatMap(({ layers }) => layers.map((layer) => ({ layer, sums: unknown, seconds: 0 }))),
    bytesAfter: [...(await layoutsOf(source, changedEnvelope(source, plan), plan)).values()].reduce(
      (sum, { fileSize }) => sum + fileSize,
      0,
    ),
    computeSeconds: 0,
  };
}

/** What each file becomes, by name. */
export async function layoutsOf(
  source: TensorSource,
  envelope: Envelope,
  plan: ModelPlan,
): Promise<ReadonlyMap<string, Layout>> {
  const layouts = new Map<string, Layout>();
  for (const shard of plan.shards) layouts.set(shard.file, await shardLayout(source, envelope, plan, shard));
  await yieldIfDue();
  await containerNamed(plan.container).checkReadable?.(layouts);
  return layouts;
}

/** Bytes of the weights that are quantized, as they lie in the input: what those take that errors are fed back to. */
function weightBytes({ shards }: ModelPlan): number {
  let bytes = 0;
  for (const { layers } of shards)
    for (const { site } of layers)
      bytes += site.shape[0] * site.shape[1] * DTYPES[site.weight.type.float ?? 'float32'].bytes;
  return bytes;
}

async function convert(
  source: TensorSource,
  plan: ModelPlan,
  output: string,
  resolved: ResolvedOptions,
  weigh: Weigh,
): Promise<Made> {
  const { model, run } = resolved;
  const shared = shardRun(source, plan, plan.shards, run, model.threads);
  const results: LayerResult[] = [];
  const byFile = new Map(plan.shards.map((shard) => [shard.file, shard]));
  let weighed: Weighing | undefined;
  let probes: ProbesAhead | undefined;
  try {
    const { bytes: bytesAfter, notes } = await convertFolder({
      ...{ source, output, made: containerNamed(plan.container), force: model.force, signal: run.signal },
      envelope: shared.envelope,
      layouts: await layoutsOf(source, shared.envelope, plan),
      meanwhile: model.refine ? weightBytes(plan) : 0,
      begin: async () => {
        weighed = await weigh(source, plan, resolved, dirname(resolve(output)));
      },
      write: async (file, path, layout, mode) => {
        const own = { ...shared, source: weighed?.refined ?? source, importance: weighed?.importance };
        probes ??= new ProbesAhead(plan.shards, own);
        const shard = byFile.get(file)!;
        const settled = await probes.settle(shard);
        const written = await writeSettled(plan, settled, path, mode, own, settled === shard ? layout : undefined);
        results.push(...written.results);
        return written.layout;
      },
    });
    const { source: importance, notes: own, finished } = weighed!;
    await finished?.();
    return { importance, notes: [...own, ...notes], results, bytesAfter, computeSeconds: shared.stopwatch.seconds };
  } finally {
    await probes?.close();
    await weighed?.refined?.close();
  }
}
