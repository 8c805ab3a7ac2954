import { checkSignal } from '../compute/signal.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';

/** How `quantizeModel` has the shards of a model written by workers (`createWorker`, `hqq worker`), through BullMQ on Redis. */
export interface QueueOptions {
  /**
   * Where Redis is: `redis://host:6379`, `rediss://` with TLS. A user and a password may be in it; better, they are in the
   * environment: `HQQ_REDIS_USERNAME`, `HQQ_REDIS_PASSWORD`. Neither is ever printed.
   */
  readonly url: string;
  /**
   * Of several queues on one Redis, which.
   *
   * @default 'hqq'
   */
  readonly name?: string | undefined;
  /**
   * The shared folder, as it is called here, that is `root` of the workers. Paths of jobs are then told from there, so that the folder may be
   * mounted elsewhere on each machine. Without it they are absolute, the same on all.
   */
  readonly root?: string | undefined;
  /**
   * How often a shard is tried before the run fails with it, 1 to 100. What its data make impossible is tried once.
   *
   * @default 3
   */
  readonly attempts?: number | undefined;
  /**
   * Follow the run that writes the output already, begun by somebody who left. Other options are those of its begin.
   *
   * @default false
   */
  readonly attach?: boolean | undefined;
  /** Aborts: the call rejects with the signal's reason, and the run goes on without it. (`signal` ends the run.) */
  readonly leave?: AbortSignal | undefined;
}

/** The option of `quantizeModel` that names a queue. */
export interface QueueOption {
  /**
   * Has the shards written by workers (`createWorker`, `hqq worker`), on this and other machines that see the same folders: a URL of Redis,
   * or options. The output is the same to the byte. What takes a layer or block after the other, `refine` and `tune`, is not to be had so, nor are an `adapter` and models of ONNX; `threads`
   * are each worker's own. Needs the packages `bullmq` and `ioredis`.
   *
   * @default undefined: all is done here
   * @throws {HqqError} `ERR_DEPENDENCY`; `ERR_IO` where Redis does not answer
   */
  readonly queue?: string | QueueOptions | undefined;
}

/** What `createWorker` takes. */
export interface WorkerOptions {
  /** As in `QueueOptions`. */
  readonly url: string;
  /** As in `QueueOptions`. @default 'hqq' */
  readonly name?: string | undefined;
  /** The shared folder: nothing outside is read or written, whatever a job says. */
  readonly root: string;
  /**
   * Jobs at once, 1 to 64. One shard keeps all cores busy already; another hides the disk's waiting times.
   *
   * @default 1
   */
  readonly concurrency?: number | undefined;
  /** Threads that compute, 1 to 256, for each job. @default HQQ_THREADS, else the parallelism that the system offers */
  readonly threads?: number | undefined;
  /**
   * Seconds after which a worker that was heard of no more is taken for lost, and its shard is done again, 1 to 3600.
   *
   * @default 30
   */
  readonly lostAfter?: number | undefined;
  /** Told of every job that begins and ends. An error that it throws is not caught. */
  readonly onEvent?: ((event: WorkerEvent) => void) | undefined;
}

/** What a worker did. Plain data. */
export interface WorkerEvent {
  /** What happened. `offline`: Redis is not to be reached; the worker goes on when it is. */
  readonly kind: 'begun' | 'done' | 'failed' | 'offline';
  /** The run that the job is of. */
  readonly run?: string;
  /** What the job makes: the name of a shard, `importance`, or `finish`. */
  readonly what?: string;
  /** Why it failed. */
  readonly message?: string;
}

/** Most tries of a job. */
export const MAX_ATTEMPTS = 100;

const QUEUE_NAMES = ['url', 'name', 'root', 'attempts', 'attach', 'leave'] as const;
const WORKER_NAMES = ['url', 'name', 'root', 'concurrency', 'threads', 'lostAfter', 'onEvent'] as const;

export interface ResolvedQueue extends QueueOptions {
  readonly name: string;
  readonly attempts: number;
  readonly attach: boolean;
}

export interface ResolvedWorker extends WorkerOptions {
  readonly name: string;
  readonly concurrency: number;
  readonly lostAfter: number;
}

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolveQueue(given: string | QueueOptions): ResolvedQueue {
  const options = typeof given === 'string' ? { url: given } : given;
  if (typeof options !== 'object' || options === null) throw refused('queue', 'a URL of Redis, or an object', given);
  rejectUnknownOptions(options, QUEUE_NAMES);
  const { name = 'hqq', attempts = 3, attach = false, root, leave } = options;
  checkUrl(options.url, 'queue.url');
  checkName(name);
  checkCount(attempts, 'queue.attempts', MAX_ATTEMPTS);
  if (typeof attach !== 'boolean') throw refused('queue.attach', 'true or false', attach);
  if (root !== undefined) checkRoot(root, 'queue.root');
  checkSignal(leave);
  return { ...options, name, attempts, attach };
}

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolveWorker(options: WorkerOptions): ResolvedWorker {
  if (typeof options !== 'object' || options === null) throw refused('the options', 'an object', options);
  rejectUnknownOptions(options, WORKER_NAMES);
  const { name = 'hqq', concurrency = 1, lostAfter = 30, threads, root, onEvent } = options;
  checkUrl(options.url, 'url');
  checkName(name);
  checkRoot(root, 'root');
  checkCount(concurrency, 'concurrency', 64);
  if (threads !== undefined) checkCount(threads, 'threads', 256);
  checkCount(lostAfter, 'lostAfter', 3600);
  if (onEvent !== undefined && typeof onEvent !== 'function') throw refused('onEvent', 'a function', onEvent);
  return { ...options, name, concurrency, lostAfter };
}

function checkUrl(url: unknown, name: string): void {
  // What is shown is not the URL: it may hold a password.
  const got = typeof url === 'string' ? 'another text' : show(url);
  const expected = `Expected ${name} to be a URL of Redis, such as redis://localhost:6379, got ${got}.`;
  if (typeof url !== 'string' || !/^rediss?:\/\//.test(url) || !URL.canParse(url))
    throw new HqqError('ERR_INVALID_OPTION', expected);
  const { username, password, pathname, search, hash } = new URL(url);
  const refuse = (what: string): never => {
    throw new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be a URL of Redis ${what}.`);
  };
  try {
    decodeURIComponent(username + password);
  } catch {
    // Without its cause, for the same reason.
    refuse('whose user and password are percent-encoded: write % as %25, or use HQQ_REDIS_PASSWORD');
  }
  if (search !== '' || hash !== '')
    refuse('without a query or a fragment: write ? and # of a password as %3F and %23, or use HQQ_REDIS_PASSWORD');
  if (!/^(?:\/\d*)?$/.test(pathname))
    refuse('with nothing behind its host but the number of a database, such as redis://localhost:6379/2');
}

function checkName(name: unknown): void {
  if (typeof name !== 'string' || !/^[\w.-]{1,64}$/.test(name))
    throw refused('the name of the queue', '1 to 64 letters, digits, "-", "_" or "."', name);
}

function checkRoot(root: unknown, name: string): void {
  if (typeof root !== 'string' || root === '' || root.includes('\0')) throw refused(name, 'the path of a folder', root);
}

function checkCount(value: unknown, name: string, most: number): void {
  if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > most)
    throw refused(name, `an integer in [1, ${most}]`, value);
}

function refused(name: string, expected: string, got: unknown): HqqError {
  return new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be ${expected}, got ${show(got)}.`);
}
