import { onAbort } from '../../compute/signal.js';

/** Jobs and the slots that they share. */
interface Line<Job, Slot> {
  readonly slots: readonly Slot[];
  readonly jobs: Iterable<Job>;
}

/**
 * Does `work` for each of `jobs`, as many at once as there are `slots`: while one job computes, the next one reads and the
 * one before writes. A slot is what a job may use, buffers for instance, and is one job's at a time.
 *
 * @throws the first failure, or the signal's reason; by then no job runs any more.
 */
export async function pipeline<Job, Slot>(
  slots: readonly Slot[],
  jobs: Iterable<Job>,
  work: (job: Job, slot: Slot, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  await pipelines([{ slots, jobs }], work, signal);
}

/** Several pipelines side by side: where one waits for its disk, the others go on. All stop when one fails. */
export async function pipelines<Job, Slot>(
  lines: readonly Line<Job, Slot>[],
  work: (job: Job, slot: Slot, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  signal?.throwIfAborted();
  const stop = new AbortController();
  const release = onAbort(signal, () => stop.abort(signal?.reason));
  const serve = async (queue: Iterator<Job>, slot: Slot): Promise<void> => {
    try {
      for (;;) {
        stop.signal.throwIfAborted();
        const next = queue.next();
        if (next.done) return;
        await work(next.value, slot, stop.signal);
      }
    } catch (error) {
      stop.abort(error); // the first one counts; later calls do nothing
    }
  };
  try {
    await Promise.all(
      lines.flatMap(({ slots, jobs }) => {
        const queue = jobs[Symbol.iterator]();
        return slots.map((slot) => serve(queue, slot));
      }),
    );
  } finally {
    release();
  }
  stop.signal.throwIfAborted();
}
