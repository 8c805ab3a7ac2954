import { allocating } from '../../compute/run.js';
import type { CheckpointTensor } from '../../containers/safetensors/checkpoint.js';
import type { SafetensorsWriter } from '../../containers/safetensors/writer.js';
import type { Progress } from '../report.js';
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

/** Ranges of fewer bytes cost more in calls than what lies between them costs in bytes: they are read together with it. */
const SHORT_BYTES = 16 * 1024;

/** Bytes from one short range to the next up to which that holds. */
const NEAR_BYTES = 64 * 1024;

/** Most bytes that are read together, unless they are one range. */
const BAND_BYTES = 4 * 1024 * 1024;

/** Short ranges that lie near each other, and the one range that holds them all. */
interface Band {
  readonly span: Range;
  readonly parts: readonly Range[];
}

function* bands(ranges: readonly Range[], size: number): Generator<Band> {
  for (let first = 0; first < ranges.length; ) {
    const { at, count } = ranges[first]!;
    let end = at + count;
    let next = first + 1;
    for (; next < ranges.length; next++) {
      const range = ranges[next]!;
      const near = range.at >= end && (range.at + range.count - end) * size <= NEAR_BYTES;
      if (!near || range.count * size > SHORT_BYTES || (range.at + range.count - at) * size > BAND_BYTES) break;
      end = range.at + range.count;
    }
    yield { span: { at, count: end - at }, parts: ranges.slice(first, next) };
    first = next;
  }
}

/** Fills `into` with ranges of a tensor, one after the other. `size` is that of an element, in bytes. */
export async function readRanges(
  { file, entry }: CheckpointTensor,
  ranges: readonly Range[],
  size: number,
  into: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  let offset = 0;
  let memory: Uint8Array | undefined;
  const direct: (() => Promise<void>)[] = [];
  for (const { span, parts } of bands(ranges, size)) {
    if (parts.length === 1) {
      const target = into.subarray(offset, (offset += span.count * size));
      direct.push(() => file.read(entry.begin + span.at * size, target, signal));
      continue;
    }
    memory ??= allocating('a band of a tensor', () => new Uint8Array(BAND_BYTES));
    const band = memory.subarray(0, span.count * size);
    await file.read(entry.begin + span.at * size, band, signal);
    for (const { at, count } of parts) {
      const start = (at - span.at) * size;
      into.set(band.subarray(start, start + count * size), offset);
      offset += count * size;
    }
  }
  await inBatches(direct, signal);
}

/** Writes `from` to ranges of tensor `name`, one after the other. */
export async function writeRanges(
  writer: SafetensorsWriter,
  name: string,
  ranges: readonly Range[],
  size: number,
  from: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  if (ranges.length > CALLS && ranges.every(({ count }) => count * size <= SHORT_BYTES)) {
    return writer.writePieces(
      name,
      ranges.map(({ at, count }) => ({ at: at * size, count: count * size })),
      from,
      signal,
    );
  }
  let offset = 0;
  const calls = ranges.map(({ at, count }) => {
    const piece = from.subarray(offset, (offset += count * size));
    return () => writer.write(name, at * size, piece);
  });
  await inBatches(calls, signal);
}

async function inBatches(tasks: readonly (() => Promise<void>)[], signal: AbortSignal): Promise<void> {
  for (let first = 0; first < tasks.length; first += CALLS) {
    signal.throwIfAborted();
    const calls = tasks.slice(first, first + CALLS).map((task) => task());
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
  tensor: CheckpointTensor,
  piece: Range,
  writer: SafetensorsWriter,
  slot: Scratch,
  signal: AbortSignal,
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
