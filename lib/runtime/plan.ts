import type { Backend, Step } from '../../binding.js';
import { runTask } from '../run.js';
import type { RunOptions } from '../tensor.js';

/** Multiply-adds below which one thread is faster than waking another. */
const SERIAL_WORK = 1 << 17;

/** A list of operations that runs as one job: see `SequenceArgs` in binding.d.ts. Layers add themselves to it. */
export class Plan {
  readonly steps: Step[] = [];
  readonly #threads: number;

  constructor(threads: number) {
    this.#threads = threads;
  }

  /** @param make Makes steps from the number of threads that `work` multiply-adds deserve. */
  add(work: number, make: (threads: number) => readonly Step[]): void {
    this.steps.push(...make(work < SERIAL_WORK ? 1 : this.#threads));
  }

  async run(backend: Backend, run: RunOptions): Promise<void> {
    await runTask(backend, 'sequence', { steps: this.steps }, run);
  }
}
