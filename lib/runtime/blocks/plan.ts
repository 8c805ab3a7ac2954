import type { Backend, PreparedSequences, Step } from '../../../binding.js';
import { provide } from '../../backend/js/backend.js';
import { LAYERS } from '../../backend/js/layers.js';
import { prepareSequences, runTask } from '../../compute/run.js';
import { yieldIfDue } from '../../files/event-loop.js';

provide(LAYERS);

/** Multiply-adds below which one thread is faster than waking another. */
const SERIAL_WORK = 1 << 17;

/** Steps of a job. Reading their arguments takes microseconds each, and hundreds of them would hold the event loop up. */
const JOB_STEPS = 48;

/** A list of operations that run one after the other: see `SequenceArgs` in binding.d.ts. Layers add themselves to it. */
export class Plan {
  readonly #steps: Step[] = [];
  readonly #threads: number;

  constructor(threads: number) {
    this.#threads = threads;
  }

  /** @param make Makes steps from the number of threads that `work` multiply-adds deserve. */
  add(work: number, make: (threads: number) => readonly Step[]): void {
    this.#steps.push(...make(work < SERIAL_WORK ? 1 : this.#threads));
  }

  /**
   * Runs the steps. A backend does jobs in the order in which they come, so the next one is handed over while the one before it
   * is at work: the event loop turns in between, and nobody waits for it.
   *
   * @throws the first failure, when nothing is at work any more.
   */
  async run(backend: Backend, run: { readonly signal?: AbortSignal | undefined }): Promise<void> {
    const jobs: Promise<void>[] = [];
    for (let at = 0; at < this.#steps.length; at += JOB_STEPS) {
      if (at > 0) await yieldIfDue();
      const job = runTask(backend, 'sequence', { steps: this.#steps.slice(at, at + JOB_STEPS) }, run);
      job.catch(() => {}); // it may fail before all are awaited
      jobs.push(job);
    }
    for (const result of await Promise.allSettled(jobs)) if (result.status === 'rejected') throw result.reason;
  }

  /** Reads the arguments of the steps, for a plan that will run many times. */
  prepare(backend: Backend): PreparedPlan {
    return new PreparedPlan(backend, prepareSequences(backend, [this.#steps]));
  }
}

/** A plan whose arguments were read: one job, however many steps it has. What its arrays hold may change from run to run. */
export class PreparedPlan {
  readonly #backend: Backend;
  readonly #sequences: PreparedSequences;

  constructor(backend: Backend, sequences: PreparedSequences) {
    this.#backend = backend;
    this.#sequences = sequences;
  }

  /** Runs all steps. @throws as `Plan.run` does. */
  async run(run: { readonly signal?: AbortSignal | undefined }): Promise<void> {
    await runTask(this.#backend, 'prepared', { sequences: this.#sequences, index: 0 }, run);
  }
}
