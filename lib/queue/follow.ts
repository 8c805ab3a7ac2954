import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Queue } from 'bullmq';
import { readWhole } from '../files/io.js';
import { parseJson } from '../files/json.js';
import { removeParents } from '../files/parents.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import type { ModelReport, Progress } from '../models/report.js';
import { addJobs, clearFiles, type Run } from './begin.js';
import { addressOf } from './connection.js';
import { failureOf, jobId } from './jobs.js';
import { FILES } from './manifest.js';
import type { ResolvedQueue } from './options.js';
import { namesIn, writeJson } from './whole-file.js';

/** Milliseconds between two looks at the files of a run; every so many of them Redis is asked, too. */
const [LOOKS, ASKED] = [250, 4];
/** Milliseconds in which Redis answers, or it is away for now. */
const ANSWER = 5_000;
/** Milliseconds in which jobs under way end when the run does. Later ones find its folder gone, and end then. */
const END = 10_000;
/** Looks that find no files of the run before it is taken for gone: a shared folder may be away for a moment. */
const GONE = 8;
/** Looks that fail before they are given up. */
const PATIENCE = 240;
/** Milliseconds that a report stays for others who follow the run. */
const LINGER = 750;
/** Times that Redis says it knows no job of the run before that is believed: between two jobs there is none. */
const UNKNOWN = 5;

/** And of these, those after which jobs that wait are looked at, too, while there is no shard. */
const RARELY = 5 * ASKED;
/** Most jobs that are looked at. */
const MOST = 4095;
/** So many times as often as a shard is tried, tries in all may fail before the first shard is written. */
const NOTHING = 3;

const MAX_BYTES = 512 * 1024 * 1024;

interface Following {
  readonly queue: ResolvedQueue;
  readonly opened: Queue;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/**
 * Follows a run to its end, and clears its files.
 *
 * @throws {HqqError} what a job failed of; the reason of `signal` or `leave` when it is aborted. What fails here alone, and not the run,
 *   ends the following of it, and nothing else.
 */
export async function followRun(run: Run, following: Following): Promise<ModelReport> {
  const { opened, signal } = following;
  try {
    const report = await untilDone(run, following);
    await removeJobs(run, opened);
    await sleep(LINGER);
    await clearFiles(run);
    return report;
  } catch (error) {
    if (!(error instanceof Failed) && !signal?.aborted) throw error;
    await tellEnd(run);
    await removeJobs(run, opened);
    const late = await reportOf(run).catch(() => undefined); // it was being put in its place in that moment
    await sleep(LINGER);
    await clearFiles(run);
    if (late !== undefined) return late;
    await removeParents(run.manifest.parents);
    throw error instanceof Failed ? error.cause : error;
  }
}

/** The run has failed, of what is its cause. */
class Failed extends Error {
  constructor(cause: HqqError) {
    super(cause.message, { cause });
  }
}

/** Says that the run has ended, where nobody has yet. */
async function tellEnd({ folder }: Run): Promise<void> {
  const names = await namesIn(folder).catch(() => undefined);
  if (!names?.has(FILES.manifest) || names.has(FILES.ended)) return;
  const message = 'ERR_IO the run: somebody who follows it has ended it.';
  await writeJson(join(folder, FILES.ended), { what: 'the run', message }).catch(() => {});
}

async function untilDone(run: Run, { queue, opened, signal, onProgress }: Following): Promise<ModelReport> {
  const { manifest, folder } = run;
  let [unknown, gone, failing] = [0, 0, 0];
  let shown = '';
  let active: readonly Stand[] = [];
  for (let look = 0; ; look++) {
    signal?.throwIfAborted();
    queue.leave?.throwIfAborted();
    let names: ReadonlySet<string>;
    let written: ReadonlySet<string>;
    try {
      names = await namesIn(folder);
      written = await namesIn(join(folder, FILES.shards));
      failing = 0;
    } catch (error) {
      if (++failing >= PATIENCE) throw error;
      await rest();
      continue;
    }
    if (names.has(FILES.report)) return reportOf(run);
    if (names.has(FILES.ended)) throw new Failed(await failure(run));
    gone = names.has(FILES.manifest) ? 0 : gone + 1;
    if (gone >= GONE) {
      const message = `${plain(folder)}, where the run has its files, is gone`;
      throw new HqqError('ERR_IO', `${message}. Somebody else followed the run to its end, or ended it.`);
    }
    if (gone > 0) {
      await rest();
      continue;
    }
    if (look % ASKED === 0) {
      const asked = await answerOf(ask(run, opened));
      if (asked?.failed !== undefined) throw new Failed(failureOf(asked.failed));
      unknown = asked?.unknown ? unknown + 1 : 0;
      if (unknown >= UNKNOWN) {
        const message = `Redis at ${addressOf(queue.url)} has no job of the run that writes ${plain(run.output)}: it did not keep its data`;
        throw new HqqError('ERR_IO', `${message}. attach (--attach) adds them again; shards that are written stay.`);
      }
      active = asked?.active ?? [];
    }
    // Each worker rests after a failure, and all shards come before the second try of the first: the end would be hours away.
    if (look % RARELY === RARELY - 1 && ![...written].some(isResult) && !active.some(isComputing)) {
      const failed = await answerOf(triesOf(run, opened));
      if (failed && failed.tries >= NOTHING * manifest.attempts) throw new Failed(failureOf(failed.lastly));
    }
    if (onProgress) {
      const progress = progressOf(manifest.shards, written, active);
      const text = JSON.stringify(progress);
      if (text !== shown) onProgress(progress);
      shown = text;
    }
    await rest();
  }

  async function rest(): Promise<void> {
    await sleep(LOOKS, undefined, { signal: anyOf(signal, queue.leave) }).catch(() => {}); // the next round says why
  }
}

function anyOf(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}

/** A job that is under way. */
interface Stand {
  /** Of which shard; undefined: it finds importance, or finishes. */
  readonly index?: number;
  readonly progress: Partial<Progress>;
}

interface Asked {
  readonly active: readonly Stand[];
  /** What the run failed of, as the queue has it. */
  readonly failed?: string | undefined;
  readonly unknown: boolean;
}

async function ask({ data: { run } }: Run, opened: Queue): Promise<Asked> {
  const states = await Promise.all(
    (['importance', 'finish'] as const).map((kind) => opened.getJobState(jobId(run, { kind }))),
  );
  const failedKind = states[1] === 'failed' ? 'finish' : states[0] === 'failed' ? 'importance' : undefined;
  const failed = failedKind && (await whyFailed(opened, jobId(run, { kind: failedKind })));
  const active: Stand[] = [];
  for (const job of await opened.getJobs(['active'], 0, MOST)) {
    if (!job?.id?.startsWith(`${run}-`)) continue;
    const progress = typeof job.progress === 'object' ? (job.progress as Partial<Progress>) : {};
    const index = /-shard-(\d+)$/.exec(job.id)?.[1];
    active.push({ progress, ...(index === undefined ? {} : { index: Number(index) }) });
  }
  return { active, failed, unknown: states.every((state) => state === 'unknown') };
}

/** A worker that this model or this version of hqq is not for never comes so far. */
const isComputing = ({ progress: { weightsDone } }: Stand): boolean => isNumber(weightsDone) && weightsDone > 0;
const isResult = (name: string): boolean => name.endsWith('.json');

/** Tries that have failed, of jobs that are to be tried again, and what one of them failed of. */
async function triesOf(
  { data: { run } }: Run,
  opened: Queue,
): Promise<{ readonly tries: number; readonly lastly: string }> {
  let [tries, lastly] = [0, ''];
  for (const job of await opened.getJobs(['delayed', 'wait'], 0, MOST)) {
    if (!job?.id?.startsWith(`${run}-shard-`) || job.attemptsMade === 0) continue;
    tries += job.attemptsMade;
    lastly = job.failedReason ?? lastly;
  }
  return { tries, lastly };
}

/** What a job failed of, or that of its children which it did. */
async function whyFailed(opened: Queue, id: string): Promise<string> {
  const reason = (await opened.getJob(id))?.failedReason ?? 'for no known reason';
  const child = /^child \S+:(\S+) failed$/.exec(reason)?.[1];
  const inner = child === undefined ? undefined : (await opened.getJob(child))?.failedReason;
  const text = inner ?? reason;
  return text.startsWith('ERR_') ? text : `ERR_IO ${child ?? id}: ${text}`;
}

/** What is answered in time; undefined where Redis is away. */
async function answerOf<T>(asked: Promise<T>): Promise<T | undefined> {
  const stop = new AbortController();
  const late = sleep(ANSWER, undefined, { signal: stop.signal }).catch(() => undefined);
  try {
    return await Promise.race([asked.catch(() => undefined), late]);
  } finally {
    stop.abort();
  }
}

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

/** How far all workers together are. */
function progressOf(
  shards: Run['manifest']['shards'],
  written: ReadonlySet<string>,
  active: readonly Stand[],
): Progress {
  const sums = { tensor: '', weightsDone: 0, weightsTotal: 0, tensorsDone: 0, tensorsTotal: 0 };
  for (const [index, { weights, tensors, file }] of shards.entries()) {
    sums.weightsTotal += weights;
    sums.tensorsTotal += tensors;
    const at = active.find((stand) => stand.index === index)?.progress;
    if (written.has(`${index}.json`)) {
      sums.weightsDone += weights;
      sums.tensorsDone += tensors;
    } else if (at) {
      sums.weightsDone += Math.min(isNumber(at.weightsDone) ? at.weightsDone : 0, weights);
      sums.tensorsDone += Math.min(isNumber(at.tensorsDone) ? at.tensorsDone : 0, tensors);
      sums.tensor = typeof at.tensor === 'string' ? at.tensor : file;
    }
  }
  const importance = active.find(({ progress }) => progress.importance)?.progress.importance;
  if (importance === undefined || !isNumber(importance.done) || !isNumber(importance.total)) return sums;
  const { phase, done, total } = importance;
  return {
    ...sums,
    importance: { phase: phase === 'expecting' || phase === 'writing' ? phase : 'reading', done, total },
  };
}

async function reportOf({ folder }: Run): Promise<ModelReport> {
  const path = join(folder, FILES.report);
  return parseJson(await readWhole(path, MAX_BYTES), { file: path }) as ModelReport;
}

/** What was left to say why a run ended. */
async function failure({ folder }: Run): Promise<HqqError> {
  const path = join(folder, FILES.ended);
  const value = parseJson(await readWhole(path, MAX_BYTES), { file: path }) as { readonly message?: unknown } | null;
  return failureOf(`${value?.message}`);
}

/** Takes what is left of a run off the queue. Its jobs under way end first. */
async function removeJobs({ data: { run } }: Run, opened: Queue): Promise<void> {
  const until = performance.now() + END;
  const remove = async (): Promise<boolean> => {
    try {
      await (await opened.getJob(jobId(run, { kind: 'importance' })))?.remove();
      await (await opened.getJob(jobId(run, { kind: 'finish' })))?.remove({ removeChildren: true });
      return true;
    } catch {
      return false; // one is under way
    }
  };
  while (performance.now() < until) {
    if (await answerOf(remove())) return;
    await sleep(LOOKS);
  }
}

/** Adds jobs that Redis does not know any more. */
export async function restoreRun(run: Run, queue: ResolvedQueue, opened: Queue): Promise<void> {
  const names = await namesIn(run.folder);
  if (names.has(FILES.report) || names.has(FILES.ended)) return;
  if ((await ask(run, opened)).unknown) await addJobs(run, queue, opened);
}
