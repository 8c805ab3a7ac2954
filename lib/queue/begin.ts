import * as fs from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Queue } from 'bullmq';
import { fileOfText, textOfFile } from '../calibrate/text.js';
import { isSaved, weigh } from '../calibrate/weighing/weigh.js';
import { containerNamed } from '../containers/list.js';
import { creationError, ensureFreeSpace, systemCode } from '../files/io.js';
import { enterable, modeAt } from '../files/modes.js';
import { checkApart, checkReplaceable } from '../files/output-rules.js';
import { checkParent, makeParents, removeParents } from '../files/parents.js';
import type { QuantConfig } from '../matrix/config.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { readBitPlan } from '../models/bit-plan.js';
import type { ConversionRun, ModelOptions } from '../models/options.js';
import { inputsOf } from '../models/output-folder.js';
import { changedEnvelope } from '../models/quantize/plan.js';
import { type Prepared, prepare } from '../models/quantize/prepare.js';
import { layoutsOf } from '../models/quantize/quantize.js';
import { packageVersion } from '../models/quantize/version.js';
import { addFlow, importanceJob, type JobData } from './jobs.js';
import {
  FILES,
  fingerprintOf,
  folderOf,
  freshRun,
  isRun,
  type Manifest,
  readManifest,
  stagingOf,
  summariesOf,
  told,
  writeManifest,
} from './manifest.js';
import type { ResolvedQueue } from './options.js';
import { writeWeighed } from './weighed.js';
import { namesIn } from './whole-file.js';

/** A run, as who began it or follows it knows it. */
export interface Run {
  readonly manifest: Manifest;
  /** Where its output will be, and its files are. */
  readonly output: string;
  readonly folder: string;
  readonly data: JobData;
}

type Options = QuantConfig & ModelOptions & ConversionRun;

/**
 * Plans a model once, and adds the jobs that write it.
 *
 * @throws {HqqError} as `quantizeModel` before it reads a weight; nothing is left behind
 */
export async function beginRun(
  input: string,
  output: string,
  options: Options,
  queue: ResolvedQueue,
  opened: Queue,
): Promise<Run> {
  const prepared = await prepare(input, output, options);
  try {
    return await beginPrepared(prepared, output, options, queue, opened);
  } finally {
    await prepared.source.close();
  }
}

async function beginPrepared(
  prepared: Prepared,
  output: string,
  options: Options,
  queue: ResolvedQueue,
  opened: Queue,
): Promise<Run> {
  const { source, plan, resolved } = prepared;
  const made = containerNamed(plan.container);
  if (resolved.model.adapter !== undefined)
    throw unfit('an adapter that is merged (adapter), which other machines do not have');
  if (resolved.model.refine) throw unfit('error feedback (refine), which a layer after the other needs');
  if (source.graphs !== undefined || made.beside !== undefined)
    throw unfit('models of ONNX, whose tensors lie in other files');
  const place = await placeOf(output);
  await checkApart(place, inputsOf(source));
  await checkApart(stagingOf(place), inputsOf(source));
  await checkReplaceable(place, source.kind, made, resolved.model.force);
  const paths = { input: await told(source.path, queue.root), output: await told(place, queue.root) };
  const carried = await carriedOf(options);
  const parents: string[] = [];
  const run = freshRun();
  await makeParents(dirname(place), parents);
  try {
    await claim(place, (await modeAt(inputsOf(source)[0]!)) ?? 0o777);
    try {
      const folder = folderOf(place, run);
      await fs.mkdir(folder);
      await fs.mkdir(join(folder, FILES.shards));
      const layouts = await layoutsOf(source, changedEnvelope(source, plan), plan);
      await ensureFreeSpace(
        dirname(place),
        [...layouts.values()].reduce((sum, { fileSize }) => sum + fileSize, 0),
      );
      const weighs = await weighSoon(prepared, folder);
      const manifest: Manifest = {
        ...{ version: 1, hqq: packageVersion(), run, ...paths, options: carried, digest: plan.digest },
        ...{ plan: fingerprintOf(plan), shards: summariesOf(plan), begun: Date.now() },
        ...{ attempts: queue.attempts, parents, weighs },
      };
      const sha256 = await writeManifest(folder, manifest);
      const data = { version: 1, run, manifest: await told(join(folder, FILES.manifest), queue.root), sha256 } as const;
      const begun = { manifest, output: place, folder, data };
      resolved.run.signal?.throwIfAborted();
      await addJobs(begun, queue, opened);
      return begun;
    } catch (error) {
      await clearFiles({ output: place, folder: folderOf(place, run) });
      throw error;
    }
  } catch (error) {
    await removeParents(parents);
    throw error;
  }
}

/** Removes the files of a run, and of no other: one may have begun beside it. */
export async function clearFiles({ folder, output }: Pick<Run, 'folder' | 'output'>): Promise<void> {
  await fs.rm(folder, { recursive: true, force: true, maxRetries: 5 }).catch(() => {});
  await fs.rmdir(stagingOf(output)).catch(() => {});
}

/** Adds what is not there yet. */
export async function addJobs(
  { manifest, data, folder }: Run,
  { url, name }: ResolvedQueue,
  opened: Queue,
): Promise<void> {
  if (manifest.weighs && !(await namesIn(folder)).has(FILES.weighed)) await opened.add(...importanceJob(data));
  else await addFlow(url, name, data, manifest);
}

/**
 * The run that writes an output.
 *
 * @throws {HqqError} `ERR_IO` where there is none
 */
export async function findRun(output: string, { root }: ResolvedQueue): Promise<Run> {
  const place = await placeOf(output);
  const names = [...(await namesIn(stagingOf(place)))];
  for (const name of names) {
    const folder = folderOf(place, name);
    if (!(await namesIn(folder)).has(FILES.manifest)) continue;
    const path = join(folder, FILES.manifest);
    const { manifest, sha256 } = await readManifest(path);
    const data = { version: 1, run: manifest.run, manifest: await told(path, root), sha256 } as const;
    return { manifest, output: place, folder, data };
  }
  const message = `Expected a run that writes ${plain(place)}, to follow it, but there is none`;
  throw new HqqError('ERR_IO', `${message}. Begin one: without attach (--attach).`);
}

async function placeOf(output: string): Promise<string> {
  const absolute = resolve(output);
  return join(await checkParent(dirname(absolute)), basename(absolute));
}

/** Makes the folder of the run: as it is made but once, one run alone has it. */
async function claim(place: string, mode: number): Promise<void> {
  const staging = stagingOf(place);
  for (let tries = 0; ; tries++) {
    try {
      await fs.mkdir(staging, enterable(mode & 0o777));
      return;
    } catch (error) {
      if (systemCode(error) !== 'EEXIST' || tries > 0) throw creationError(staging, error);
    }
    const names = [...(await namesIn(staging))];
    const isOver = async (name: string) => {
      if (!isRun(name)) return false;
      const files = await namesIn(join(staging, name));
      return files.has(FILES.report) || files.has(FILES.ended);
    };
    if (names.length === 0 || !(await Promise.all(names.map(isOver))).every(Boolean)) {
      const message = `${plain(place)} is being written by another run: its files are in ${plain(staging)}`;
      const advice = 'Follow it (attach, --attach). If nothing works at it any more, remove that folder.';
      throw new HqqError('ERR_IO', `${message}. ${advice}`);
    }
    // Nobody came for what is said there. Each by its name, which no other has, so that one that begins meanwhile stays.
    for (const name of names) await fs.rm(join(staging, name), { recursive: true, force: true });
    await fs.rmdir(staging).catch(() => {});
  }
}

/** Finds importance where that takes no time. Else there is to be a job: true. */
async function weighSoon({ source, plan, resolved }: Prepared, folder: string): Promise<boolean> {
  const dryRun = !isSaved(resolved.model.importance);
  const weighed = await weigh(source, plan, { ...resolved, model: { ...resolved.model, dryRun } }, folder);
  if (dryRun && weighed.source !== 'none') return true;
  await writeWeighed(folder, weighed);
  return false;
}

/** Options as they travel: without those of the call, and with what they name in the place of names. */
async function carriedOf(options: Options): Promise<QuantConfig & ModelOptions> {
  const { signal: _signal, onProgress: _progress, threads: _threads, dryRun: _dry, ...carried } = options;
  const { plan, importance } = carried;
  const file = typeof importance === 'string' ? fileOfText(importance) : undefined;
  return {
    ...carried,
    ...(plan === undefined ? {} : { plan: { ...(await readBitPlan(plan)).plan, report: undefined } }),
    ...(file !== undefined
      ? { importance: { text: await textOfFile(file) } }
      : importance !== undefined && isSaved(importance)
        ? { importance: 'none' } // found already
        : {}),
  };
}

function unfit(what: string): HqqError {
  return new HqqError('ERR_INVALID_OPTION', `Expected no queue with ${what}, got one. Quantize without it.`);
}
