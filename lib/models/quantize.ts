import { basename, dirname, join, resolve } from 'node:path';
import { activeBackend } from '../backend/index.js';
import { relativeError } from '../compute/arguments.js';
import { resolveThreads } from '../compute/run.js';
import { Checkpoint } from '../containers/safetensors/checkpoint.js';
import type { Layout } from '../containers/safetensors/layout.js';
import type { SafetensorsFile } from '../containers/safetensors/reader.js';
import { checkReadable } from '../containers/safetensors/shards.js';
import { SafetensorsWriter } from '../containers/safetensors/writer.js';
import { endingNotes } from '../files/endings.js';
import { checkApart, checkReplaceable } from '../files/output-rules.js';
import { checkParent } from '../files/parents.js';
import type { QuantConfig } from '../matrix/config.js';
import { DTYPES } from '../matrix/dtype.js';
import { HqqError } from '../messages/errors.js';
import { formatCount, plural } from '../messages/units.js';
import { largeSpecs } from '../schemes/hqq/state-dict.js';
import { withMember } from './config-text.js';
import { type ConversionRun, checkPath, type ModelOptions, type ResolvedOptions, resolveOptions } from './options.js';
import { convertFolder, inputsOf, removeFile } from './output-folder.js';
import { type LayerPlan, type ModelPlan, planModel, type ShardPlan, shardLayout } from './plan.js';
import { type LayerResult, quantizeShard, type ShardRun } from './quantize-shard.js';
import type { ModelReport, TensorReport } from './report.js';
import { Counter, makeSlots, Stopwatch } from './stream/transfer.js';

export { MODEL_OPTIONS, type ModelOptions } from './options.js';

/** As entry.ts says, through which the package exports it. */
export async function quantizeModel(
  input: string,
  output: string,
  options: QuantConfig & ModelOptions & ConversionRun = {},
): Promise<ModelReport> {
  const started = performance.now();
  checkPath(input, 'the input');
  checkPath(output, 'the output');
  const resolved = resolveOptions(options);
  resolved.run.signal?.throwIfAborted();
  const checkpoint = await Checkpoint.open(input);
  try {
    const plan = withoutEmpty(planModel(checkpoint, resolved.asked, resolved.model));
    const made = resolved.model.dryRun
      ? await dryRun(plan, output, resolved.model.force)
      : await convert(plan, output, resolved);
    return report(plan, input, output, resolved, made, (performance.now() - started) / 1000);
  } finally {
    await checkpoint.close();
  }
}

/** Relative error (root mean square error over root mean square) from which on a tensor is told to be of no use as it is. */
const RUINED = 0.5;

/** What was made, or would be. */
interface Made {
  readonly notes: readonly string[];
  readonly results: readonly LayerResult[];
  readonly bytesAfter: number;
  readonly computeSeconds: number;
}

/** Without shards that held only biases, which go where their weights are: no index would name them. */
function withoutEmpty(plan: ModelPlan): ModelPlan {
  return { ...plan, shards: plan.shards.filter(({ layers, copies }) => layers.length + copies.length > 0) };
}

/**
 * What would be made; nothing is written. An output that could never be is refused. What the user can still clear away, an
 * output that exists or a folder that may not be written to, is noted: nobody should have to make room for a plan.
 */
async function dryRun({ checkpoint, shards }: ModelPlan, output: string, force: boolean): Promise<Made> {
  const parent = dirname(resolve(output));
  const { kind, inputs } = inputsOf(checkpoint);
  const obstacles: string[] = [];
  const attempt = <T>(check: Promise<T>): Promise<T | undefined> => {
    return check.catch((error: unknown) => {
      if (!(error instanceof HqqError)) throw error;
      obstacles.push(error.message);
      return undefined;
    });
  };
  const target = join((await attempt(checkParent(parent))) ?? parent, basename(resolve(output)));
  await checkApart(target, inputs);
  await checkReplaceable(target, kind, true);
  await attempt(checkReplaceable(target, kind, force));
  const unknown = { absError: NaN, squaredError: NaN, squaredWeight: NaN, iterations: 0, badIndex: -1 };
  return {
    notes: obstacles.map((message) => `As things are, the run itself would fail. ${message}`),
    results: shards.flatMap(({ layers }) =>
      layers.map((layer) => ({ layer, sums: unknown, seconds: 0, fit: 'holds' as const })),
    ),
    bytesAfter: [...layoutsOf(shards).values()].reduce((sum, { fileSize }) => sum + fileSize, 0),
    computeSeconds: 0,
  };
}

/** What each file becomes. */
function layoutsOf(shards: readonly ShardPlan[]): ReadonlyMap<SafetensorsFile, Layout> {
  const layouts = new Map(shards.map((shard) => [shard.file, shardLayout(shard)]));
  checkReadable(new Map([...layouts].map(([file, layout]) => [file.name, layout])));
  return layouts;
}

async function convert(plan: ModelPlan, output: string, { model, run }: ResolvedOptions): Promise<Made> {
  const { checkpoint, shards, quantization } = plan;
  const layers = shards.flatMap((shard) => shard.layers);
  const copies = shards.reduce(
    (sum, shard) => sum + shard.copies.filter(({ entry }) => entry.end > entry.begin).length,
    0,
  );
  const shared = {
    slots: makeSlots(),
    backend: activeBackend(),
    threads: resolveThreads(model.threads),
    counter: new Counter(
      run.onProgress,
      layers.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0),
      layers.length + copies,
    ),
    stopwatch: new Stopwatch(),
    signal: run.signal,
    mayRepeat: model.metaDtype === 'auto',
  };
  const results: LayerResult[] = [];
  const byFile = new Map(shards.map((shard) => [shard.file, shard]));
  const bytesAfter = await convertFolder({
    checkpoint,
    output,
    force: model.force,
    signal: run.signal,
    config: (text) => withMember(text, 'quantization_config', quantization),
    layouts: layoutsOf(shards),
    write: async (file, path, layout, mode) => {
      const made = await writeShard(byFile.get(file)!, path, layout, { ...shared, mode });
      results.push(...made.results);
      return made.layout;
    },
  });
  return { notes: [], results, bytesAfter, computeSeconds: shared.stopwatch.seconds };
}

/** Writes one shard; a second time, with float32 scales and zeros for the layers that float16 turned out not to hold. */
async function writeShard(
  plan: ShardPlan,
  path: string,
  planned: Layout,
  run: Omit<ShardRun, 'writer'> & { readonly mode: number },
): Promise<{ readonly results: readonly LayerResult[]; readonly layout: Layout }> {
  let shard = plan;
  let layout = planned;
  for (;;) {
    const writer = await SafetensorsWriter.create(path, layout, run.mode);
    try {
      const results = await quantizeShard(shard, { ...run, writer });
      const loose = new Set(results.filter(({ layer, fit }) => isLoose(layer, fit)).map(({ layer }) => layer));
      if (!run.mayRepeat || loose.size === 0) {
        await writer.finish();
        return { results, layout };
      }
      const layers = shard.layers.map(
        (layer): LayerPlan => (loose.has(layer) ? { ...layer, metaDtype: 'float32' } : layer),
      );
      run.counter.again(
        layers.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0),
        layers.length + shard.copies.filter(({ entry }) => entry.end > entry.begin).length,
      );
      shard = { ...shard, layers };
      layout = shardLayout(shard);
      await writer.abandon();
      await removeFile(path);
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  }
}

function isLoose({ metaDtype }: LayerPlan, fit: LayerResult['fit']): boolean {
  return metaDtype === 'float16' && fit !== 'holds';
}

function report(
  plan: ModelPlan,
  input: string,
  output: string,
  { config, model }: ResolvedOptions,
  made: Made,
  seconds: number,
): ModelReport {
  const { checkpoint, dense, notes } = plan;
  const order = new Map([...checkpoint.tensors.keys()].map((name, index) => [name, index]));
  const tensors = made.results.map(reportTensor).sort((a, b) => order.get(a.name)! - order.get(b.name)!);
  const weights = tensors.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
  const sum = (part: (result: LayerResult) => number) =>
    made.results.reduce((total, result) => total + part(result), 0);
  const absError = sum(({ sums }) => sums.absError);
  const ruined = tensors.filter((tensor) => tensor.relativeError >= RUINED);
  return {
    input,
    output,
    config,
    dryRun: model.dryRun,
    tensors,
    dense,
    totals: {
      weights,
      bitsPerWeight: (8 * tensors.reduce((total, { bytesAfter }) => total + bytesAfter, 0)) / weights,
      bytesBefore: checkpoint.files.reduce((total, { size }) => total + size, 0),
      bytesAfter: made.bytesAfter,
      meanAbsError: absError / weights,
      relativeError: relativeError(
        sum(({ sums }) => sums.squaredError),
        sum(({ sums }) => sums.squaredWeight),
      ),
      seconds,
      computeSeconds: made.computeSeconds,
    },
    notes: [
      ...notes,
      ...endingNotes(output, inputsOf(checkpoint).kind),
      ...made.notes,
      ...(ruined.length === 0 ? [] : [ruinedNote(ruined.length, tensors.length)]),
    ],
  };
}

function ruinedNote(count: number, of: number): string {
  const lost = `${formatCount(count)} of ${plural(of, 'tensor')} lost half of their size or more to quantization`;
  return `${lost}: without training, a model like this says nothing of sense. Use more bits or smaller groups.`;
}

function reportTensor({ layer, sums, seconds }: LayerResult): TensorReport {
  const { shape, config, format, metaDtype, adapted, weight, geometry } = layer;
  const count = shape[0] * shape[1];
  const [codes] = largeSpecs(layer);
  const words = codes!.shape[0]! * codes!.shape[1]!;
  const bytesAfter = words * format.wordBytes + 2 * geometry.groups * DTYPES[metaDtype].bytes;
  return {
    name: weight.entry.name,
    shape,
    config,
    packing: format.packing,
    metaDtype,
    ...(adapted === undefined ? {} : { adapted }),
    meanAbsError: sums.absError / count,
    meanSquaredError: sums.squaredError / count,
    relativeError: relativeError(sums.squaredError, sums.squaredWeight),
    bitsPerWeight: (8 * bytesAfter) / count,
    bytesBefore: weight.entry.end - weight.entry.begin,
    bytesAfter,
    seconds,
  };
}
