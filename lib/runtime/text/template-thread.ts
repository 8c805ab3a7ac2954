import type { Worker } from 'node:worker_threads';
import { workerThreads } from '../../backend/worker-threads.js';
import { onAbort } from '../../compute/signal.js';
import { HqqError } from '../../messages/errors.js';

/** What the thread runs, as text for the reason that the tokenizer's is: it answers each template and its variables with a text. */
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

/** Memory of the thread, in MiB. */
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

/**
 * Makes texts with chat templates, on a thread of its own and one after the other. A template is a program that came with the model, and
 * whose variables may come from anybody: one that does not end goes with its thread, and the next has a fresh one.
 */
export class TemplateThread {
  readonly #library: string;
  readonly #limitMs: number;
  /** The first is with the thread. */
  readonly #jobs: Job[] = [];
  #worker: Worker | undefined;
  #timer: NodeJS.Timeout | undefined;
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
      if (this.#jobs.push(job) === 1) this.#begin(job);
    });
  }

  /** Ends the thread. Renderings under way fail. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { reject, forget } of this.#jobs.splice(0)) {
      forget();
      reject(closed());
    }
    await this.#end();
  }

  #begin(job: Job): void {
    try {
      this.#worker ??= this.#start();
      this.#worker.ref();
      this.#worker.postMessage(job.rendering);
    } catch (error) {
      this.#settle(({ reject }) => reject(error));
      return;
    }
    const late = () => {
      const took = `Expected the model's chat template to be done within ${this.#limitMs / 1000} s, got none of its text`;
      const advice = 'it does not end with these messages, or with these templateOptions';
      this.#drop(job, new HqqError('ERR_INVALID_ARGUMENT', `${took}: ${advice}.`));
    };
    // Its answer may have come while something else held the event loop up.
    this.#timer = setTimeout(() => setImmediate(late), this.#limitMs);
  }

  #start(): Worker {
    const worker = new (workerThreads().Worker)(PROGRAM, {
      ...{ eval: true, name: 'hqq chat template', execArgv: [], workerData: this.#library },
      resourceLimits: { maxOldGenerationSizeMb: MOST_MEMORY },
    });
    const fail = (error: unknown) => {
      if (worker !== this.#worker) return;
      this.#worker = undefined;
      if (this.#jobs.length > 0) this.#settle(({ reject }) => reject(error));
    };
    worker.on('message', (answer: { readonly value: string } | { readonly error: unknown }) => {
      if (worker !== this.#worker) return;
      this.#settle(({ resolve, reject }) => ('error' in answer ? reject(answer.error) : resolve(answer.value)));
    });
    worker.on('error', fail);
    worker.on('exit', () => fail(new Error('The thread of the chat template has ended.')));
    return worker;
  }

  /** Nobody waits for it any more. */
  #drop(job: Job, reason: unknown): void {
    const at = this.#jobs.indexOf(job);
    if (at < 0) return;
    if (at === 0) {
      void this.#end();
      this.#settle(({ reject }) => reject(reason));
      return;
    }
    this.#jobs.splice(at, 1);
    job.forget();
    job.reject(reason);
  }

  /** Ends the first, and begins the next. */
  #settle(tell: (job: Job) => void): void {
    clearTimeout(this.#timer);
    const job = this.#jobs.shift()!;
    job.forget();
    tell(job);
    if (this.#jobs[0]) this.#begin(this.#jobs[0]);
    else this.#worker?.unref();
  }

  async #end(): Promise<void> {
    clearTimeout(this.#timer);
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }
}

const closed = () => new HqqError('ERR_CLOSED', 'Expected the tokenizer to be open, got a call after close.');
