import type { Backend, PreparedSequences, Step } from '../../../binding.js';
import { provide } from '../../backend/js/backend.js';
import { LAYERS } from '../../backend/js/layers.js';
import { prepareSequences, runTask } from '../../compute/run.js';
import { whenAllEnd, yieldIfDue } from '../../files/event-loop.js';

provide(LAYERS);

/** Multiply-adds below which one thread is faster than waking another. */
const SERIAL_WORK = 1 << 17;

/** Steps of a job. Reading their arguments takes microseconds each, and hundreds of them would hold the event loop up. */
const JOB_STEPS = 48;

/** How a plan runs. */
export interface PlanRun {
  readonly signal?: AbortSignal | undefined;
}

/** What only the results of the steps before it decide: it runs when these are done, and the steps after it when it has settled. */
export interface Decision {
  run(backend: Backend, run: PlanRun): Promise<void>;
}

/** A list of operations that run one after the other: see `SequenceArgs` in binding.d.ts. Layers add themselves to it. */
export class Plan {
  readonly threads: number;
  readonly #parts: (Step[] | Decision)[] = [];

  constructor(threads: number) {
    this.threads = threads;
  }

  /** @param make Makes steps from the number of threads that `work` multiply-adds deserve. */
  add(work: number, make: (threads: number) => readonly Step[]): void {
    const last = this.#parts.at(-1);
    const steps = make(work < SERIAL_WORK ? 1 : this.threads);
    if (Array.isArray(last)) last.push(...steps);
    else this.#parts.push([...steps]);
  }

  /** Adds what JavaScript does between steps. */
  decide(decision: Decision): void {
    this.#parts.push(decision);
  }

  /** The steps, in runs between which JavaScript decides something. */
  get parts(): readonly (readonly Step[] | Decision)[] {
    return this.#parts;
  }

  /** Runs the steps. @throws the first failure, when nothing is at work any more. */
  async run(backend: Backend, run: PlanRun): Promise<void> {
    for (const part of this.#parts) await (Array.isArray(part) ? runSteps(backend, part, run) : part.run(backend, run));
  }

  /** Reads the arguments of the steps, for a plan that will run many times. */
  prepare(backend: Backend): PreparedPlan {
    const runs = this.#parts.filter((part) => Array.isArray(part));
    const sequences = runs.length > 0 ? prepareSequences(backend, runs) : {}; // nothing to read
    let steps = 0;
    return new PreparedPlan(
      backend,
      sequences,
      this.#parts.map((part) => (Array.isArray(part) ? steps++ : part)),
    );
  }
}

/**
 * A backend does jobs in the order in which they come, so the next one is handed over while the one before it is at work: the event
 * loop turns in between, and nobody waits for it.
 */
async function runSteps(backend: Backend, steps: readonly Step[], run: PlanRun): Promise<void> {
  const jobs: Promise<void>[] = [];
  for (let at = 0; at < steps.length; at += JOB_STEPS) {
    if (at > 0) await yieldIfDue();
    const job = runTask(backend, 'sequence', { steps: steps.slice(at, at + JOB_STEPS) }, run);
    job.catch(() => {}); // it may fail before all are awaited
    jobs.push(job);
  }
  await whenAllEnd(jobs);
}

/**
 * A plan whose arguments were read: one job, however many steps it has, and one more for each decision. What its arrays hold may change
 * from run to run.
 */
export class PreparedPlan {
  readonly #backend: Backend;
  readonly #sequences: PreparedSequences;
  readonly #parts: readonly (number | Decision)[];

  /** @param parts Places of sequences among those that were read, and decisions. */
  constructor(backend: Backend, sequences: PreparedSequences, parts: readonly (number | Decision)[]) {
    this.#backend = backend;
    this.#sequences = sequences;
    this.#parts = parts;
  }

  /** Runs all steps. @throws as `Plan.run` does. */
  async run(run: PlanRun): Promise<void> {
    const [backend, sequences] = [this.#backend, this.#sequences];
    for (const part of this.#parts)
      await (typeof part === 'number'
        ? runTask(backend, 'prepared', { sequences, index: part }, run)
        : part.run(backend, run));
  }
}
