import { allocating } from '../../compute/run.js';
import { onAbort } from '../../compute/signal.js';

/** Jobs and the slots that they share. */
export interface Line<Job, Slot> {
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

/** Buffers above are made as large as they must be; smaller ones grow in powers of two. */
const LARGE_BYTES = 4 * 1024 * 1024;

/** Smallest buffer: growing from less would be done again soon. */
const MIN_BYTES = 64 * 1024;

interface ArrayClass<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, byteOffset: number, length: number): T;
}

/** Buffers of one slot, by name, used again and again: memory that is given back and taken anew costs more than the work. */
export class Scratch {
  readonly #buffers = new Map<string, ArrayBuffer>();

  /**
   * An array of `length` elements with anything in it. It is the caller's until the same name is asked for again.
   *
   * @throws {HqqError} `ERR_OUT_OF_MEMORY`
   */
  take<T>(name: string, kind: ArrayClass<T>, length: number): T {
    const bytes = length * kind.BYTES_PER_ELEMENT;
    let buffer = this.#buffers.get(name);
    if (!buffer || buffer.byteLength < bytes) {
      this.#buffers.delete(name); // the old one may go before the new one comes
      const size = bytes > LARGE_BYTES ? bytes : Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(bytes || 1)));
      buffer = allocating(`${bytes} bytes of a part of a tensor`, () => new ArrayBuffer(size));
      this.#buffers.set(name, buffer);
    }
    return new kind(buffer, 0, length);
  }
}
