import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import type { Envelope, TensorEntry, TensorSource } from '../../containers/container.js';
import { containerNamed, openSource } from '../../containers/list.js';
import { withPath } from '../../files/io.js';
import { type FilePath, pathOf } from '../../files/path.js';
import { StagedOutput } from '../../files/staged-output.js';
import type { QuantConfig } from '../../matrix/config.js';
import { HqqError, show } from '../../messages/errors.js';
import { plain, quoteSome } from '../../messages/text.js';
import { type ConversionRun, type ModelOptions, resolveOptions } from '../options.js';
import { inputsOf, writeCompanions } from '../output-folder.js';
import type { ModelReport } from '../report.js';
import { checkPart, checkPlan, checkResult, type ShardResult, strangeResult } from './check-shards.js';
import { changedEnvelope, type ModelPlan, planModel, type ShardPlan, shardLayout } from './plan.js';
import { probeShard } from './probe-shard.js';
import type { Importance } from './quantize-shard.js';
import { reportQuantized } from './report.js';
import { shardRun, writeSettled } from './write-shard.js';

// A conversion in parts, by several processes or machines: one plans, each shard is written by whoever has the input and the plan,
// and one puts the output together. What goes between them is plain JSON. lib/queue is what is public of it.

/** How `writeShard` runs. */
interface ShardOptions extends ConversionRun {
  readonly threads?: number | undefined;
  /** Plans do not hold it: whoever writes shards of a model gives all the same. */
  readonly importance?: Importance | undefined;
  /** Permissions of the file. @default those of new files */
  readonly mode?: number | undefined;
}

/**
 * @internal
 * Plans what `quantizeModel` would do with the same options. Nothing is written.
 *
 * @throws {HqqError} as `quantizeModel` does before it reads a weight
 */
export async function planConversion(
  from: FilePath,
  options: QuantConfig & ModelOptions & ConversionRun = {},
): Promise<ModelPlan> {
  const input = pathOf(from, 'the input');
  const resolved = resolveOptions(options);
  if (resolved.model.adapter !== undefined) {
    throw new HqqError('ERR_INVALID_OPTION', 'Expected no adapter where shards are written one by one.');
  }
  return withSource(input, (source) => planModel(source, resolved));
}

/**
 * @internal
 * Writes one shard of a plan to `path`, which must not exist: the bytes that `quantizeModel` writes.
 *
 * @param input Where the model is that the plan was made for: on this machine perhaps elsewhere.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for another model, one that has changed since, or a shard that the plan does not have;
 *   else as `quantizeModel`. Nothing is left behind.
 */
export async function writeShard(
  plan: ModelPlan,
  file: string,
  input: string,
  path: string,
  options: ShardOptions = {},
): Promise<ShardResult> {
  return withSource(input, async (source) => {
    await checkPlan(plan, source, options.signal);
    return writeShardOf(source, plan, file, path, options);
  });
}

/**
 * @internal
 * The same of a model that is open and that the plan is known to be of.
 *
 * @param source Who called opened it.
 */
export async function writeShardOf(
  source: TensorSource,
  plan: ModelPlan,
  file: string,
  path: string,
  options: ShardOptions = {},
): Promise<ShardResult> {
  const { threads, importance, mode } = options;
  const shard = shardOf(plan, file);
  const run = shardRun(source, plan, [shard], options, threads, importance);
  const { results } = await writeSettled(plan, await probeShard(shard, run), path, mode, run);
  return { file, layers: results, computeSeconds: run.stopwatch.seconds };
}

/** The parts of an output, and where it will be. */
interface Parts {
  readonly input: string;
  /** What `writeShard` gave, of each shard, in any order. */
  readonly results: readonly ShardResult[];
  /** Where each shard was written, by its name. They stay as they are: the output has links to them where it can, or copies. */
  readonly paths: ReadonlyMap<string, string>;
  readonly output: string;
  readonly force?: boolean;
  /** What it was from, if shards were written with one. */
  readonly importance?: string;
  /** Whether the input was quantized already. */
  readonly requantized?: boolean;
  /** More for the report's notes. */
  readonly notes?: readonly string[];
  readonly signal?: AbortSignal | undefined;
  /** When the first shard was begun, in milliseconds since 1970. @default now */
  readonly began?: number;
  /** Called when all is written, to `path`, before it is put in its place. */
  readonly settled?: (path: string, report: ModelReport) => Promise<void>;
}

/**
 * @internal
 * Puts shards and all that surrounds them in place, whole or not at all: the output of `quantizeModel`, to the byte. Of each shard the
 * header is checked, which says what it holds and where; its tensors are what `writeShard` put there.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for an input that the plan was not made for, or a shard that is missing or another;
 *   `ERR_CHECKPOINT_FORMAT` for one that cannot be read; `ERR_IO`.
 */
export async function finishShards(plan: ModelPlan, parts: Parts): Promise<ModelReport> {
  const { input, signal } = parts;
  return withSource(input, async (source) => {
    await checkPlan(plan, source, signal);
    return finishShardsOf(source, plan, parts);
  });
}

/**
 * @internal
 * The same of a model that is open and that the plan is known to be of.
 *
 * @param source Who called opened it.
 */
export async function finishShardsOf(source: TensorSource, plan: ModelPlan, parts: Parts): Promise<ModelReport> {
  const { input, results, output, force = false, requantized = false, began = Date.now(), signal } = parts;
  const inputs = inputsOf(source);
  const staged = await StagedOutput.begin(output, source.kind, {
    ...{ made: containerNamed(plan.container), force, inputs, like: inputs[0] },
  });
  try {
    const envelope = changedEnvelope(source, plan);
    const files = new Map<string, Iterable<TensorEntry>>();
    let bytesAfter = 0;
    for (const shard of plan.shards) {
      const { entries, fileSize } = await placeShard(plan, shard, { source, envelope }, parts, staged);
      files.set(shard.file, entries.values());
      bytesAfter += fileSize;
    }
    if (staged.kind === 'folder') await writeCompanions(staged, envelope, files, signal);
    signal?.throwIfAborted();
    const report = await reportQuantized(
      source,
      plan,
      { input, output, dryRun: false, requantized },
      {
        importance: parts.importance ?? 'none',
        notes: [...(parts.notes ?? []), ...(await staged.notes())],
        ...{ bytesAfter, results: results.flatMap(({ layers }) => layers) },
        computeSeconds: results.reduce((sum, { computeSeconds }) => sum + computeSeconds, 0),
      },
      Math.max(Date.now() - began, 0) / 1000,
    );
    await parts.settled?.(staged.path, report);
    await staged.commit();
    return report;
  } catch (error) {
    await staged.abandon();
    throw error;
  }
}

/** Puts a shard into the output; returns what it holds. */
async function placeShard(
  plan: ModelPlan,
  shard: ShardPlan,
  { source, envelope }: { readonly source: TensorSource; readonly envelope: Envelope },
  { results, paths }: Parts,
  staged: StagedOutput,
) {
  const { file } = shard;
  const result = results.find((other) => other.file === file);
  const from = paths.get(file);
  if (result === undefined || from === undefined) {
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected every shard of the plan to be written, but not ${plain(file)}.`,
    );
  }
  checkResult(shard, result);
  const layers = result.layers.map(({ layer }) => layer);
  const layout = await shardLayout(source, envelope, plan, { ...shard, layers }).catch((error: unknown) => {
    if (error instanceof HqqError) throw error;
    throw strangeResult(file, 'forms of layers that are none', error);
  });
  await checkPart(plan, file, from, layout);
  const name = staged.kind === 'file' ? '.' : file;
  await linkOrCopy(from, join(staged.path, name), await staged.modeOf(name));
  return layout;
}

/** Puts a file at `to` too, with permissions `mode`. The file itself stays as it is, its permissions too: with others it is copied. */
async function linkOrCopy(from: string, to: string, mode: number): Promise<void> {
  await withPath('Cannot put in place', to, async () => {
    if (((await fs.lstat(from)).mode & 0o777) === mode) {
      const linked = await fs.link(from, to).then(
        () => true,
        () => false, // another disk, or no links
      );
      if (linked) return;
    }
    await fs.copyFile(from, to, fs.constants.COPYFILE_EXCL | fs.constants.COPYFILE_FICLONE);
    await fs.chmod(to, mode);
  });
}

async function withSource<T>(input: string, work: (source: TensorSource) => Promise<T>): Promise<T> {
  const source = await openSource(input);
  try {
    return await work(source);
  } finally {
    await source.close();
  }
}

function shardOf({ shards }: ModelPlan, file: string): ShardPlan {
  const shard = shards.find((other) => other.file === file);
  if (shard !== undefined) return shard;
  const names = quoteSome(shards.map((other) => other.file));
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `Expected a shard of the plan (${names}), got ${show(file)}.`);
}
