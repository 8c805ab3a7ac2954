import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import type { Job } from 'bullmq';
import { untilAborted } from '../compute/signal.js';
import { systemCode, withPath } from '../files/io.js';
import { HqqError, type HqqErrorCode } from '../messages/errors.js';
import type { Progress } from '../models/report.js';
import { addressOf, closeQueue, connectionOf, loadBullMq, openQueue, PREFIX, soon } from './connection.js';
import { Contexts, Elsewhere } from './context.js';
import { addFlow, checkJob, failureText, type JobData, type Task, whatOf } from './jobs.js';
import { FILES, type Manifest, readManifest } from './manifest.js';
import { MAX_ATTEMPTS, resolveWorker, type WorkerEvent, type WorkerOptions } from './options.js';
import { Ended, whileGoingOn } from './watch.js';
import { writeJson } from './whole-file.js';
import { finishRun, weighRun, writeShardOfRun } from './work.js';

/** What takes jobs of a queue: `createWorker`. */
export interface QueueWorker {
  /**
   * Takes no more jobs, and is done when those under way are. Where Redis is away it is not waited for: what was done in the meantime is
   * found by whoever takes the job next.
   *
   * @param options `now`: jobs under way are given back to the queue at once; others do them again.
   */
  close(options?: { readonly now?: boolean }): Promise<void>;
}

/** Errors of a place or a moment, which another try may not have. All others are the data's. */
const PASSING: readonly HqqErrorCode[] = ['ERR_IO', 'ERR_OUT_OF_MEMORY', 'ERR_BACKEND_UNAVAILABLE', 'ERR_DEPENDENCY'];
/** How often a job is begun again whose worker was lost, before it is taken for what kills them. */
const LOSSES = 5;
/** Milliseconds of the first rest after such an error, in which others take the job, and of the longest. */
const [REST, LONGEST_REST] = [2_000, 60_000];
/** Milliseconds between two tellings of how far a job is. */
const TELL = 1000;

/** As entry.ts says, through which the package exports it. */
export async function createWorker(given: WorkerOptions): Promise<QueueWorker> {
  const options = resolveWorker(given);
  const { url, name, concurrency, lostAfter } = options;
  const root = await withPath('Cannot read', options.root, () => fs.realpath(options.root));
  const { Worker } = loadBullMq();
  await closeQueue(await openQueue(url, name)); // there, and ours to use: else the worker would wait for it in silence
  const work = new Work(root, options);
  const worker = new Worker(name, (job, token) => work.process(job, token ?? ''), {
    ...{ connection: connectionOf(url), prefix: PREFIX, concurrency, autorun: false },
    ...{ lockDuration: 1000 * lostAfter, stalledInterval: 500 * lostAfter, maxStalledCount: LOSSES },
  });
  let closing: Promise<void> | undefined;
  work.rest = (milliseconds) => {
    void worker.pause(true);
    setTimeout(() => closing ?? void worker.resume(), milliseconds).unref();
  };
  let isOffline = false;
  worker.on('ready', () => {
    isOffline = false;
  });
  worker.on('error', (error) => {
    const isGone = systemCode(error) !== undefined || /Connection is closed|^connect /.test(error.message);
    if (!isGone || isOffline) return;
    isOffline = true;
    work.tell({ kind: 'offline', message: `Cannot reach Redis at ${addressOf(url)}` });
  });
  worker.on('failed', (job) => void work.failed(job));
  await worker.waitUntilReady();
  void worker.run();
  const end = async () => {
    const ended = worker.close();
    do {
      await Promise.race([ended, work.idle()]);
      if (await soon(ended)) return;
    } while (work.isBusy); // with a job that was being fetched when no more were to be taken
    // Redis is away, and BullMQ would wait until it is back. Its close(true) would not, but does nothing after close(); and until then
    // timers of it keep the process.
    worker.closing = undefined;
    await soon(worker.close(true));
    await soon(worker.pause(true));
    await soon(worker.disconnect());
  };
  return {
    close: ({ now = false } = {}) => {
      if (now) work.stop();
      closing ??= end().finally(() => work.close());
      return closing;
    },
  };
}

/** The reason of an abort because the worker is closed. */
class Stopped extends Error {
  override readonly name = 'AbortError';
}

function isPassing(error: unknown): boolean {
  return !(error instanceof HqqError) || error instanceof Elsewhere || PASSING.includes(error.code);
}

/** The jobs of one worker. */
class Work {
  /** Set by who owns it: takes no jobs for so long. */
  rest: (milliseconds: number) => void = () => {};
  readonly #contexts: Contexts;
  readonly #options: ReturnType<typeof resolveWorker>;
  readonly #stop = new AbortController();
  readonly #underWay = new Set<Promise<void>>();
  #nextRest = REST;

  constructor(root: string, options: ReturnType<typeof resolveWorker>) {
    this.#contexts = new Contexts(root);
    this.#options = options;
  }

  tell(event: WorkerEvent): void {
    const { onEvent } = this.#options;
    if (onEvent) setImmediate(() => onEvent(event)); // what it throws is not the job's failure
  }

  stop(): void {
    this.#stop.abort(new Stopped('the worker was closed'));
  }

  close(): Promise<void> {
    return this.#contexts.close();
  }

  get isBusy(): boolean {
    return this.#underWay.size > 0;
  }

  /** Done when no job is under way. */
  async idle(): Promise<void> {
    while (this.isBusy) await Promise.allSettled(this.#underWay);
  }

  process(job: Job, token: string): Promise<void> {
    const done = this.#process(job, token).finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
    return done;
  }

  async #process(job: Job, token: string): Promise<void> {
    const { UnrecoverableError, WaitingError } = loadBullMq();
    let known: { readonly task: Task; readonly data: JobData } | undefined;
    let what = 'a job';
    try {
      known = checkJob(job.name, job.data);
      const { task, data } = known;
      const folder = await this.#contexts.folderOf(data);
      what = whatOf(task);
      await whileGoingOn(folder, this.#stop.signal, (signal) =>
        this.#contexts.use(data, async (context) => {
          what = whatOf(task, context.manifest);
          this.tell({ kind: 'begun', run: data.run, what });
          const { threads } = this.#options;
          const run = { signal, threads, onProgress: telling(job) };
          if (task.kind === 'shard') await writeShardOfRun(context, task.index, run);
          else if (task.kind === 'finish') await finishRun(context, run);
          else {
            await weighRun(context, run);
            await untilAborted(addFlow(this.#options.url, this.#options.name, data, context.manifest), signal);
          }
        }),
      );
      this.tell({ kind: 'done', run: data.run, what });
      this.#nextRest = REST;
    } catch (error) {
      if (error instanceof Stopped) {
        await soon(job.moveToWait(token)); // where Redis is away, others take it when its lock has run out
        throw new WaitingError();
      }
      if (error instanceof Ended) throw new UnrecoverableError(error.message);
      const message = failureText(what, error);
      this.tell({ kind: 'failed', ...(known && { run: known.data.run }), what, message });
      const passes = known !== undefined && isPassing(error);
      if (passes) {
        this.rest(this.#nextRest);
        this.#nextRest = Math.min(2 * this.#nextRest, LONGEST_REST);
        if (job.attemptsMade + 1 < Math.min(job.opts.attempts ?? 1, MAX_ATTEMPTS)) throw new Error(message);
      }
      if (known) await this.#end(known.data, what, message);
      throw new UnrecoverableError(message);
    }
  }

  /** Told of every job that failed: also of such as did so without having been begun, because too many workers were lost over it. */
  async failed(job: Job | undefined): Promise<void> {
    if (job === undefined || !/stalled/.test(job.failedReason ?? '')) return;
    try {
      const { task, data } = checkJob(job.name, job.data);
      let manifest: Manifest | undefined;
      await this.#contexts.use(data, async (context) => {
        manifest = context.manifest;
      });
      const what = whatOf(task, manifest);
      const message = `ERR_IO ${what}: ${LOSSES + 1} workers were lost over it. Look at what ended them: often it is too little memory.`;
      this.tell({ kind: 'failed', run: data.run, what, message });
      await this.#end(data, what, message);
    } catch {
      // Of no run that is here.
    }
  }

  /** Ends a run that can have no output: what waits of it need not be begun. */
  async #end(data: JobData, what: string, message: string): Promise<void> {
    try {
      const folder = await this.#contexts.folderOf(data);
      await readManifest(join(folder, FILES.manifest), data.sha256); // a job that is not of it ends no run
      const path = join(folder, FILES.ended);
      await fs.access(path).catch(() => writeJson(path, { what, message }));
    } catch {
      // The queue says it, too.
    }
  }
}

/** Tells the queue how far a job is, now and then. */
function telling(job: Job): (progress: Progress) => void {
  let due = 0;
  return ({ tensor, weightsDone, tensorsDone, importance }) => {
    if (performance.now() < due) return;
    due = performance.now() + TELL;
    job.updateProgress({ tensor, weightsDone, tensorsDone, ...(importance && { importance }) }).catch(() => {}); // Redis is away
  };
}
