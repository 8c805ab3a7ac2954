import type { Backend, Step } from '../../../binding.js';
import { provide } from '../../backend/js/backend.js';
import { LAYERS } from '../../backend/js/layers.js';
import { prepareSteps, runTask } from '../../compute/run.js';
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

  /** For a plan that will run many times: the arguments of its steps are read once, in its first run. */
  prepare(backend: Backend): PreparedPlan {
    const parts = this.#parts.map((part) => (Array.isArray(part) ? new PreparedSteps(part) : part));
    return new PreparedPlan(backend, parts);
  }
}

/**
 * Jobs of one run. A backend does them in the order in which they come, so the next one is handed over while the one before it is at work:
 * the event loop turns in between, and nobody waits for it.
 */
class Jobs {
  readonly #backend: Backend;
  readonly #run: PlanRun;
  readonly #jobs: Promise<void>[] = [];

  constructor(backend: Backend, run: PlanRun) {
    this.#backend = backend;
    this.#run = run;
  }

  add(steps: readonly Step[]): void {
    const job = runTask(this.#backend, 'sequence', { steps }, this.#run);
    job.catch(() => {}); // it may fail before all are awaited
    this.#jobs.push(job);
  }

  end(): Promise<void> {
    return whenAllEnd(this.#jobs);
  }
}

async function runSteps(backend: Backend, steps: readonly Step[], run: PlanRun): Promise<void> {
  const jobs = new Jobs(backend, run);
  for (let at = 0; at < steps.length; at += JOB_STEPS) {
    if (at > 0) await yieldIfDue();
    jobs.add(steps.slice(at, at + JOB_STEPS));
  }
  await jobs.end();
}

/** Steps that run many times: the first time in jobs like others, whose arguments are kept as they were read; then in one. */
class PreparedSteps implements Decision {
  /** Those whose arguments were not read yet. */
  #left: readonly Step[];
  readonly #read: Step[] = [];

  constructor(steps: readonly Step[]) {
    this.#left = steps;
  }

  async run(backend: Backend, run: PlanRun): Promise<void> {
    const jobs = new Jobs(backend, run);
    try {
      if (this.#read.length > 0) jobs.add([...this.#read]); // which grows
      while (this.#left.length > 0) {
        await yieldIfDue();
        const sequences = prepareSteps(backend, this.#left.slice(0, JOB_STEPS));
        this.#left = this.#left.slice(JOB_STEPS);
        const step: Step = { operation: 'prepared', args: { sequences, index: 0 } };
        this.#read.push(step);
        jobs.add([step]);
      }
    } finally {
      await jobs.end();
    }
  }
}

/** A plan that runs many times. What its arrays hold may change from run to run. While it runs, no other run may begin. */
export class PreparedPlan {
  readonly #backend: Backend;
  readonly #parts: readonly Decision[];

  constructor(backend: Backend, parts: readonly Decision[]) {
    this.#backend = backend;
    this.#parts = parts;
  }

  /** Runs all steps. @throws as `Plan.run` does. */
  async run(run: PlanRun): Promise<void> {
    for (const part of this.#parts) await part.run(this.#backend, run);
  }
}
