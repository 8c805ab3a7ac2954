import type { TensorEntry, TensorSink, TensorSource } from '../../containers/container.js';
import { pieces, type Range } from '../../containers/ranges.js';
import { Scratch } from '../../containers/scratch.js';
import type { Progress } from '../report.js';

// What conversions share: where chunks of work keep their arrays, copying, counting.

/** Chunks in flight: one being read, one computed, one written. */
const SLOTS = 3;

/** Bytes of a tensor that is copied, at once: more are no faster, and every slot may hold as many. */
const COPY_BYTES = 2 * 1024 * 1024;

/**
 * Where a chunk of work keeps its arrays.
 *
 * @param more Chunks in flight beside those that are computed: such as are only copied. -1 where none is written.
 */
export function makeSlots(more = 0): readonly Scratch[] {
  return Array.from({ length: SLOTS + more }, () => new Scratch());
}

/** The bytes of a tensor, in pieces that are copied one by one. */
export function copyPieces({ begin, end }: TensorEntry): Iterable<Range> {
  return pieces(end - begin, COPY_BYTES);
}

/** Copies a piece of a tensor as it is. */
export async function copyPiece(
  source: TensorSource,
  entry: TensorEntry,
  piece: Range,
  sink: TensorSink,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  const bytes = slot.take('weights', Uint8Array, piece.count);
  await source.read(entry, piece.at, bytes, signal);
  await sink.write(entry.name, piece.at, bytes);
}

/** Counts what is done and tells of it. */
export class Counter {
  #weights = 0;
  #tensors = 0;
  readonly #weightsTotal: number;
  readonly #tensorsTotal: number;
  readonly #report: ((progress: Progress) => void) | undefined;

  constructor(report: ((progress: Progress) => void) | undefined, weightsTotal: number, tensorsTotal: number) {
    this.#report = report;
    this.#weightsTotal = weightsTotal;
    this.#tensorsTotal = tensorsTotal;
  }

  /** `weights` more are done; `finished` when they were the tensor's last. */
  add(tensor: string, weights: number, finished: boolean): void {
    this.#weights += weights;
    if (finished) this.#tensors++;
    this.#report?.({
      tensor,
      weightsDone: this.#weights,
      weightsTotal: this.#weightsTotal,
      tensorsDone: this.#tensors,
      tensorsTotal: this.#tensorsTotal,
    });
  }
}

/** Seconds in which the backend was at work: tasks wait for each other, and waiting must not count twice. */
export class Stopwatch {
  #seconds = 0;
  #last = 0;

  /** Seconds so far. */
  get seconds(): number {
    return this.#seconds;
  }

  /** Runs a task; returns the seconds that it took after the one before had ended. */
  async time(task: () => Promise<void>): Promise<number> {
    const started = performance.now();
    await task();
    const ended = performance.now();
    const seconds = (ended - Math.max(started, this.#last)) / 1000;
    this.#last = ended;
    this.#seconds += seconds;
    return seconds;
  }
}
