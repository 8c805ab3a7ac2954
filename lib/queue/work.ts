import * as fs from 'node:fs/promises';
import { basename, join } from 'node:path';
import { readWhole, standing, withPath } from '../files/io.js';
import { parseJson } from '../files/json.js';
import { modeLike } from '../files/modes.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import type { ConversionRun } from '../models/options.js';
import { inputsOf } from '../models/output-folder.js';
import type { ShardResult } from '../models/quantize/check-shards.js';
import { decodedNotes } from '../models/quantize/decoded-source.js';
import { finishShardsOf, writeShardOf } from '../models/quantize/shards.js';
import type { ModelReport } from '../models/report.js';
import { type Context, weighedOf } from './context.js';
import { FILES, resultFile, shardFile } from './manifest.js';
import { writeWeighed } from './weighed.js';
import { besideOf, isThere, namesIn, putInPlace, writeJson } from './whole-file.js';

// What jobs do. Each may be done again, by another machine, and by two at once: what is whole stays, and is the same.

interface Run extends ConversionRun {
  readonly threads?: number | undefined;
}

/** Largest result of a shard, or report. */
const MAX_BYTES = 512 * 1024 * 1024;

async function readJson<T>(path: string): Promise<T> {
  return parseJson(await readWhole(path, MAX_BYTES), { file: path }) as T;
}

/** Finds importance, once for the run. */
export async function weighRun({ manifest, folder, input, prepared }: Context, run: Run): Promise<void> {
  if (await isThere(join(folder, FILES.weighed))) return;
  const { weigh } = await import('../calibrate/weighing/weigh.js');
  const { source, plan, resolved } = prepared;
  const model = { ...resolved.model, threads: run.threads };
  const weighed = await weigh(source, plan, { ...resolved, model, run }, folder);
  if (weighed.importance === undefined) {
    const message = `Expected this worker to find the importance of ${plain(input)} as the run ${manifest.run} has it, but it cannot`;
    throw new HqqError('ERR_BACKEND_UNAVAILABLE', `${message}: ${weighed.notes.join(' ')}`);
  }
  run.signal?.throwIfAborted();
  await writeWeighed(folder, weighed);
}

/** Writes a shard, unless it is there. */
export async function writeShardOfRun(context: Context, index: number, run: Run): Promise<void> {
  const { folder, prepared, manifest } = context;
  const { source, plan } = prepared;
  const shard = plan.shards[index];
  if (shard === undefined) {
    const message = `Expected one of the ${manifest.shards.length} shards of the run, got shard ${index}.`;
    throw new HqqError('ERR_INVALID_OPTION', message);
  }
  if (await isThere(resultFile(folder, index))) return;
  const { importance } = await weighedOf(context);
  const path = shardFile(folder, index);
  const partial = besideOf(path);
  const mode = await modeLike(inputsOf(source)[0]!, source.kind === 'file' ? '.' : shard.file);
  const result = await writeShardOf(source, plan, shard.file, partial, { ...run, importance, mode });
  await putInPlace(partial, path);
  await writeJson(resultFile(folder, index), result);
}

/** Puts the output together, unless it is in its place. */
export async function finishRun(context: Context, { signal }: Run): Promise<void> {
  const { folder } = context;
  if (await isThere(join(folder, FILES.report))) return;
  const report = (await settledReport(context)) ?? (await finish(context, signal));
  await writeJson(join(folder, FILES.report), report);
  // The output has links to them, or copies.
  await fs.rm(join(folder, FILES.shards), { recursive: true, force: true }).catch(() => {}); // whoever follows the run clears it
}

async function finish(context: Context, signal: AbortSignal | undefined): Promise<ModelReport> {
  const { manifest, input, output, folder, prepared } = context;
  const { source, plan, resolved, layers } = prepared;
  const results: ShardResult[] = [];
  const written = await namesIn(join(folder, FILES.shards));
  for (const [index, { file }] of plan.shards.entries()) {
    const path = resultFile(folder, index);
    if (!written.has(basename(path)))
      throw new HqqError('ERR_IO', `Cannot read ${plain(path)}, what came of ${plain(file)}. It is not there (yet).`);
    results.push(await readJson<ShardResult>(path));
  }
  const { source: importance, notes } = await weighedOf(context);
  const { force } = resolved.model;
  try {
    return await finishShardsOf(source, plan, {
      ...{ input, output, results, force, importance, requantized: layers !== undefined, signal },
      paths: new Map(plan.shards.map(({ file }, index) => [file, shardFile(folder, index)])),
      notes: [...(layers ? decodedNotes(layers, plan) : []), ...notes],
      began: manifest.begun,
      settled: async (place, report) => {
        await writeJson(join(folder, settledName(await inodeOf(place))), report);
        signal?.throwIfAborted();
        if (await isThere(join(folder, FILES.ended))) throw new HqqError('ERR_IO', 'The run was ended.');
      },
    });
  } catch (error) {
    // Somebody else who was at it, too, has put it in its place.
    const report = await settledReport(context).catch(() => undefined);
    if (report === undefined) throw error;
    return report;
  }
}

const settledName = (inode: bigint): string => `settled-${inode}.json`;

async function inodeOf(path: string): Promise<bigint> {
  return (await withPath('Cannot look at', path, () => fs.lstat(path, { bigint: true }))).ino;
}

/**
 * The report of an output that is in its place already: who put it there did not come to say so. A folder or file has its number of inode
 * when it is written beside the place, and keeps it when it is moved.
 */
async function settledReport({ folder, output }: Context): Promise<ModelReport | undefined> {
  if ((await standing(output)) === undefined) return undefined;
  const path = join(folder, settledName(await inodeOf(output)));
  return (await isThere(path)) ? readJson<ModelReport>(path) : undefined;
}
