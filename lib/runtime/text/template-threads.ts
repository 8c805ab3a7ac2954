import type { Worker } from 'node:worker_threads';
import { workerThreads } from '../../backend/worker-threads.js';
import { onAbort } from '../../compute/signal.js';
import { HqqError } from '../../messages/errors.js';

/** What a thread runs, as text for the reason that the tokenizer's is: it answers each template and its variables with a text. */
const PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads');
const { Template } = require(workerData);
let compiled = {};
parentPort.on('message', ({ template, context }) => {
  try {
    if (compiled.text !== template) compiled = { text: template, template: new Template(template) };
    parentPort.postMessage({ value: compiled.template.render(context) });
  } catch (error) {
    parentPort.postMessage({ error });
  }
});
`;

/** Milliseconds that a template may take. Real ones take some for long conversations. */
const LIMIT_MS = 5000;

/** Milliseconds after which others no longer wait for a rendering, but have another thread. */
const SLOW_MS = 200;

/** Most threads: so many renderings that take long keep others waiting. */
const MOST_THREADS = 4;

/** Memory of a thread, in MiB. */
const MOST_MEMORY = 1024;

interface Rendering {
  readonly template: string;
  readonly context: Readonly<Record<string, unknown>>;
}

interface Job {
  readonly rendering: Rendering;
  readonly resolve: (text: string) => void;
  readonly reject: (reason: unknown) => void;
  /** Ends the watch over its signal. */
  readonly forget: () => void;
}

/** A thread, and what it renders. */
interface Seat {
  worker: Worker | undefined;
  job: Job | undefined;
  /** Whether the job takes long. */
  slow: boolean;
  timers: readonly NodeJS.Timeout[];
}

/**
 * Makes texts with chat templates, on threads of their own. A template is a program that came with the model, and whose variables may come
 * from anybody: one that does not end goes with its thread, and the next has a fresh one. There is one thread, and more only while it is at
 * work for long.
 */
export class TemplateThreads {
  readonly #library: string;
  readonly #limitMs: number;
  readonly #seats: Seat[] = [];
  readonly #waiting: Job[] = [];
  #closed = false;

  /** @param library Where `@huggingface/jinja` is. */
  constructor(library: string, limitMs = LIMIT_MS) {
    this.#library = library;
    this.#limitMs = limitMs;
  }

  /**
   * What a template makes of its variables. An abort rejects at once with the signal's reason.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` where it takes too long, `ERR_CLOSED`; and what the template throws
   */
  async render(rendering: Rendering, signal?: AbortSignal): Promise<string> {
    signal?.throwIfAborted();
    if (this.#closed) throw closed();
    return new Promise<string>((resolve, reject) => {
      const forget = onAbort(signal, () => this.#drop(job, signal!.reason));
      const job: Job = { rendering, resolve, reject, forget };
      this.#waiting.push(job);
      this.#begin();
    });
  }

  /** Ends the threads. Renderings under way fail. */
  async close(): Promise<void> {
    this.#closed = true;
    const jobs = [...this.#waiting.splice(0), ...this.#seats.flatMap(({ job }) => job ?? [])];
    for (const { reject, forget } of jobs) {
      forget();
      reject(closed());
    }
    await Promise.all(this.#seats.splice(0).map((seat) => end(seat)));
  }

  /** Gives what waits to threads that have time for it. */
  #begin(): void {
    for (let job = this.#waiting[0]; job; job = this.#waiting[0]) {
      const seat = this.#free();
      if (!seat) return;
      this.#waiting.shift();
      this.#seat(seat, job);
    }
  }

  #free(): Seat | undefined {
    const idle = this.#seats.find(({ job }) => !job);
    if (idle) return idle;
    if (this.#seats.length === MOST_THREADS || !this.#seats.every(({ slow }) => slow)) return undefined;
    const seat: Seat = { worker: undefined, job: undefined, slow: false, timers: [] };
    this.#seats.push(seat);
    return seat;
  }

  #seat(seat: Seat, job: Job): void {
    seat.job = job;
    try {
      seat.worker ??= this.#start(seat);
      seat.worker.ref();
      seat.worker.postMessage(job.rendering);
    } catch (error) {
      this.#settle(seat, ({ reject }) => reject(error));
      return;
    }
    const slow = () => {
      seat.slow = true;
      this.#begin();
    };
    const late = () => {
      const took = `Expected the model's chat template to be done within ${this.#limitMs / 1000} s, got none of its text`;
      const advice = 'it does not end with these messages, or with these templateOptions';
      this.#drop(job, new HqqError('ERR_INVALID_ARGUMENT', `${took}: ${advice}.`));
    };
    // Its answer may have come while something else held the event loop up.
    seat.timers = [setTimeout(slow, SLOW_MS), setTimeout(() => setImmediate(late), this.#limitMs)];
  }

  #start(seat: Seat): Worker {
    const worker = new (workerThreads().Worker)(PROGRAM, {
      ...{ eval: true, name: 'hqq chat template', execArgv: [], workerData: this.#library },
      resourceLimits: { maxOldGenerationSizeMb: MOST_MEMORY },
    });
    const fail = (error: unknown) => {
      if (worker !== seat.worker) return;
      seat.worker = undefined;
      if (seat.job) this.#settle(seat, ({ reject }) => reject(error));
    };
    worker.on('message', (answer: { readonly value: string } | { readonly error: unknown }) => {
      if (worker !== seat.worker) return;
      this.#settle(seat, ({ resolve, reject }) => ('error' in answer ? reject(answer.error) : resolve(answer.value)));
    });
    worker.on('error', fail);
    worker.on('exit', () => fail(new Error('The thread of the chat template has ended.')));
    return worker;
  }

  /** Nobody waits for it any more. */
  #drop(job: Job, reason: unknown): void {
    const seat = this.#seats.find((one) => one.job === job);
    if (seat) {
      void end(seat);
      this.#settle(seat, ({ reject }) => reject(reason));
      return;
    }
    const at = this.#waiting.indexOf(job);
    if (at < 0) return;
    this.#waiting.splice(at, 1);
    job.forget();
    job.reject(reason);
  }

  /** Ends what a thread renders. Those beyond the first go when nothing waits. */
  #settle(seat: Seat, tell: (job: Job) => void): void {
    for (const timer of seat.timers) clearTimeout(timer);
    const job = seat.job!;
    seat.job = undefined;
    seat.slow = false;
    job.forget();
    tell(job);
    this.#begin();
    if (seat.job) return;
    seat.worker?.unref();
    const at = this.#seats.indexOf(seat); // none after `close`, which has taken all
    if (at < 0 || this.#seats.length === 1) return;
    this.#seats.splice(at, 1);
    void end(seat);
  }
}

/** Ends a thread; the next job has a fresh one. */
async function end(seat: Seat): Promise<void> {
  for (const timer of seat.timers) clearTimeout(timer);
  const { worker } = seat;
  seat.worker = undefined;
  await worker?.terminate();
}

const closed = () => new HqqError('ERR_CLOSED', 'Expected the tokenizer to be open, got a call after close.');
