import type { Progress } from '../report.js';
import type { CheckpointTensor } from '../safetensors/checkpoint.js';
import type { SafetensorsWriter } from '../safetensors/writer.js';
import type { Range } from './chunks.js';
import { Scratch } from './pipeline.js';

// Moving ranges of tensors between files and buffers.

/** Chunks in flight: one being read, one computed, one written, and beside them one that is only copied. */
const SLOTS = 4;

/** Bytes of a tensor that is copied, at once. */
const COPY_BYTES = 8 * 1024 * 1024;

/** System calls under way at once for one chunk: enough to keep the threads of libuv busy. */
const CALLS = 16;

/** Where a chunk of work keeps its arrays. */
export function makeSlots(): readonly Scratch[] {
  return Array.from({ length: SLOTS }, () => new Scratch());
}

/** Fills `into` with ranges of a tensor, one after the other. `size` is that of an element, in bytes. */
export async function readRanges(
  { file, entry }: CheckpointTensor, ranges: readonly Range[], size: number, into: Uint8Array, signal: AbortSignal,
): Promise<void> {
  await eachRange(ranges, size, (at, offset, length) => {
    return file.read(entry.begin + at, into.subarray(offset, offset + length), signal);
  });
}

/** Writes `from` to ranges of tensor `name`, one after the other. */
export async function writeRanges(
  writer: SafetensorsWriter, name: string, ranges: readonly Range[], size: number, from: Uint8Array,
): Promise<void> {
  await eachRange(ranges, size, (at, offset, length) => writer.write(name, at, from.subarray(offset, offset + length)));
}

async function eachRange(
  ranges: readonly Range[], size: number, call: (at: number, offset: number, length: number) => Promise<void>,
): Promise<void> {
  let offset = 0;
  for (let first = 0; first < ranges.length; first += CALLS) {
    const calls = ranges.slice(first, first + CALLS).map(({ at, count }) => {
      const start = offset;
      offset += count * size;
      return call(at * size, start, count * size);
    });
    // All of them, also when one fails: buffers are given to the next job only when nothing writes to them any more.
    const results = await Promise.allSettled(calls);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  }
}

/** Elements `0 .. count` in pieces of at most `most`. */
export function* pieces(count: number, most: number): Generator<Range> {
  for (let at = 0; at < count; at += most) yield { at, count: Math.min(most, count - at) };
}

/** The bytes of a tensor, in pieces that are copied one by one. */
export function copyPieces({ entry: { begin, end } }: CheckpointTensor): Iterable<Range> {
  return pieces(end - begin, COPY_BYTES);
}

/** Copies a piece of a tensor as it is. */
export async function copyPiece(
  tensor: CheckpointTensor, piece: Range, writer: SafetensorsWriter, slot: Scratch, signal: AbortSignal,
): Promise<void> {
  const bytes = slot.take('copy', Uint8Array, piece.count);
  await tensor.file.read(tensor.entry.begin + piece.at, bytes, signal);
  await writer.write(tensor.entry.name, piece.at, bytes);
}

/** Counts what is done and tells of it. */
export class Counter {
  #weights = 0;
  #tensors = 0;
  #weightsTotal: number;
  readonly #tensorsTotal: number;
  readonly #report: ((progress: Progress) => void) | undefined;

  constructor(report: ((progress: Progress) => void) | undefined, weightsTotal: number, tensorsTotal: number) {
    this.#report = report;
    this.#weightsTotal = weightsTotal;
    this.#tensorsTotal = tensorsTotal;
  }

  /** Work that has to be done again. */
  again(weights: number, tensors: number): void {
    this.#weightsTotal += weights;
    this.#tensors -= tensors;
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
