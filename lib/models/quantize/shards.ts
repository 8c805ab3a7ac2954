import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import type { QuantSums } from '../../compute/arguments.js';
import type { Envelope, Layout, TensorEntry, TensorSource } from '../../containers/container.js';
import { digestOf } from '../../containers/digest.js';
import { containerNamed, openSource } from '../../containers/list.js';
import { kindOf, withPath } from '../../files/io.js';
import { type FilePath, pathOf } from '../../files/path.js';
import { StagedOutput } from '../../files/staged-output.js';
import type { QuantConfig } from '../../matrix/config.js';
import { HqqError, show } from '../../messages/errors.js';
import { plain, quote, quoteSome } from '../../messages/text.js';
import { type ConversionRun, type ModelOptions, resolveOptions } from '../options.js';
import { inputsOf, writeCompanions } from '../output-folder.js';
import type { ModelReport } from '../report.js';
import { changedEnvelope, type ModelPlan, planModel, type ShardPlan, shardLayout } from './plan.js';
import { probeShard } from './probe-shard.js';
import type { Importance, LayerResult } from './quantize-shard.js';
import { reportQuantized } from './report.js';
import { shardRun, writeSettled } from './write-shard.js';

// A conversion in parts, by several processes or machines: one plans, each shard is written by whoever has the input and the plan,
// and one puts the output together. What goes between them is plain JSON. Not yet public: docs/architecture.md says what it is for.

/** A shard that was written. Plain data. */
export interface ShardResult {
  readonly file: string;
  readonly layers: readonly LayerResult[];
  /** Seconds in the backend. */
  readonly computeSeconds: number;
}

/** How `writeShard` runs. */
interface ShardOptions extends ConversionRun {
  readonly threads?: number | undefined;
  /** Plans do not hold it: whoever writes shards of a model gives all the same. */
  readonly importance?: Importance | undefined;
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
  const { signal, threads, importance } = options;
  return withSource(input, async (source) => {
    await checkPlan(plan, source, signal);
    const shard = shardOf(plan, file);
    const run = shardRun(source, plan, [shard], options, threads, importance);
    const { results } = await writeSettled(plan, await probeShard(shard, run), path, undefined, run);
    return { file, layers: results, computeSeconds: run.stopwatch.seconds };
  });
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
  readonly signal?: AbortSignal;
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
  const started = performance.now();
  const { input, results, output, force = false, signal } = parts;
  return withSource(input, async (source) => {
    await checkPlan(plan, source, signal);
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
      await staged.commit();
      const made = {
        importance: parts.importance ?? 'none',
        ...{ notes: await staged.notes(), bytesAfter, results: results.flatMap(({ layers }) => layers) },
        computeSeconds: results.reduce((sum, { computeSeconds }) => sum + computeSeconds, 0),
      };
      return reportQuantized(
        source,
        plan,
        { input, output, dryRun: false, requantized: false },
        made,
        (performance.now() - started) / 1000,
      );
    } catch (error) {
      await staged.abandon();
      throw error;
    }
  });
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

/** Refuses what does not tell of the shard's layers: it may come from another machine, and another version. */
function checkResult({ file, layers }: ShardPlan, { layers: given, computeSeconds }: ShardResult): void {
  if (!Array.isArray(given)) throw strangeResult(file, `${show(given)} as its layers`);
  if (typeof computeSeconds !== 'number') throw strangeResult(file, `${show(computeSeconds)} as computeSeconds`);
  const left = new Map(layers.map((layer) => [layer.site.name, layer]));
  for (const result of given as readonly (LayerResult | null | undefined)[]) {
    const name = result?.layer?.site?.name;
    const planned = left.get(name!);
    if (planned === undefined)
      throw strangeResult(file, `a result of layer ${show(name)}, which is not in it or told of already`);
    const model = { layer: planned, sums: SUMS, seconds: 0 };
    const flaw =
      JSON.stringify(result!.layer.site) === JSON.stringify(planned.site) ? flawOf(result, model) : 'layer.site';
    if (flaw !== undefined) throw strangeResult(file, `another ${flaw} of layer ${quote(name!)}`);
    left.delete(name!);
  }
  const [missing] = left.keys();
  if (missing !== undefined) throw strangeResult(file, `no result of layer ${quote(missing)}`);
}

const SUMS: QuantSums = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0, badIndex: -1 };

/** Where `value` has not the fields that `model` has, of the same kinds. */
function flawOf(value: unknown, model: unknown, path = ''): string | undefined {
  if (typeof value !== typeof model || (value === null) !== (model === null)) return path || 'shape';
  if (typeof model !== 'object' || model === null) return undefined;
  for (const [key, field] of Object.entries(model)) {
    if (field === undefined) continue; // which JSON does not carry
    const flaw = flawOf((value as Record<string, unknown>)[key], field, path === '' ? key : `${path}.${key}`);
    if (flaw !== undefined) return flaw;
  }
  return undefined;
}

function strangeResult(file: string, got: string, cause?: unknown): HqqError {
  const message = `Expected the result of ${plain(file)} to be what writeShard gave, got ${got}. Write the shard again.`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', message, cause === undefined ? undefined : { cause });
}

/** Refuses what is not the file that the layout describes. */
async function checkPart(plan: ModelPlan, file: string, from: string, layout: Layout): Promise<void> {
  const refuse = (got: string): never => {
    const message = `Expected ${plain(from)} to be ${plain(file)} of the plan, got ${got}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Write the shard again.`);
  };
  const stat = await withPath('Cannot read', from, () => fs.lstat(from));
  // A link could lead to anybody's file, which would be in the output then, and change with it.
  if (!stat.isFile()) refuse(kindOf(stat));
  if (stat.size !== layout.fileSize) refuse(`${stat.size} bytes where it has ${layout.fileSize}`);
  const part = await containerNamed(plan.container).open(from);
  try {
    const own = [...part.entries.values()];
    const planned = [...layout.entries.values()];
    const other = planned.find((entry, index) => !isSame(entry, own[index]));
    if (other !== undefined) refuse(`a file without its tensor ${quote(other.name)}, or with it elsewhere`);
    if (own.length > planned.length) refuse(`a file that holds ${quote(own[planned.length]!.name)} too`);
  } finally {
    await part.close();
  }
}

function isSame(a: TensorEntry, b: TensorEntry | undefined): boolean {
  const place = ({ name, type, shape, begin, end }: TensorEntry) =>
    JSON.stringify([name, type.name, shape, begin, end]);
  return b !== undefined && place(a) === place(b);
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

/** Refuses a plan of another version, and a model that it was not made for. */
async function checkPlan(plan: ModelPlan, source: TensorSource, signal: AbortSignal | undefined): Promise<void> {
  if (plan?.version !== 1) {
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected a plan of version 1, got ${show(plan?.version)}. Make it anew.`,
    );
  }
  const digest = await digestOf(source, signal);
  if (digest === plan.digest) return checkEntries(plan, source);
  const message = `Expected ${plain(source.path)} to be the model that the plan was made for, but it is another, or has changed since`;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${message}: its digest is ${digest}, that of the plan ${show(plan.digest)}.`,
  );
}

/** Refuses a plan that was edited by hand: what it says of tensors must be what the model says. */
function checkEntries({ shards }: ModelPlan, { entries }: TensorSource): void {
  for (const { file, layers, copies } of shards) {
    const planned = layers.flatMap(({ site: { weight, bias } }) => (bias ? [weight, bias] : [weight]));
    const strange = planned.find(({ name, begin, end, part, ...entry }) => {
      const own = entries.get(part?.of ?? name);
      if (own === undefined || own.file !== entry.file) return true;
      return part ? begin < own.begin || end > own.end : own.begin !== begin || own.end !== end;
    });
    const name = strange?.name ?? copies.find((copy) => !entries.has(copy));
    if (name === undefined) continue;
    const message = `Expected the plan of ${plain(file)} to name tensors of the model where they are, but not ${show(name)}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Make the plan anew.`);
  }
}
