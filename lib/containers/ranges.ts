import type { TensorEntry, TensorSink } from './container.js';
import type { NumberSource } from './rounding.js';
import type { Scratch } from './scratch.js';

// Moving ranges of tensors between files and buffers.

/** Elements of a tensor that lie side by side: `count` from element `at`. */
export interface Range {
  readonly at: number;
  readonly count: number;
}

/** System calls under way at once for one chunk: enough to keep the threads of libuv busy. */
const CALLS = 16;

/** Ranges of fewer bytes cost more in calls than what lies between them costs in bytes: they are read together with it. */
const SHORT_BYTES = 16 * 1024;

/** Bytes from one short range to the next up to which that holds. */
const NEAR_BYTES = 64 * 1024;

/** Most bytes that are read together, unless they are one range. */
const BAND_BYTES = 1024 * 1024;

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

/**
 * Fills `into` with ranges of a tensor, one after the other. `size` is that of an element, in bytes. Takes `band` of the slot, which
 * no other call may use meanwhile.
 */
export async function readRanges(
  source: NumberSource,
  entry: TensorEntry,
  ranges: readonly Range[],
  size: number,
  into: Uint8Array,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  let offset = 0;
  const direct: (() => Promise<void>)[] = [];
  for (const { span, parts } of bands(ranges, size)) {
    if (parts.length === 1) {
      const target = into.subarray(offset, (offset += span.count * size));
      direct.push(() => source.read(entry, span.at * size, target, signal));
      continue;
    }
    const band = slot.take('band', Uint8Array, span.count * size);
    await source.read(entry, span.at * size, band, signal);
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
  sink: TensorSink,
  name: string,
  ranges: readonly Range[],
  size: number,
  from: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  if (ranges.length > CALLS && ranges.every(({ count }) => count * size <= SHORT_BYTES)) {
    return sink.writePieces(
      name,
      ranges.map(({ at, count }) => ({ at: at * size, count: count * size })),
      from,
      signal,
    );
  }
  let offset = 0;
  const calls = ranges.map(({ at, count }) => {
    const piece = from.subarray(offset, (offset += count * size));
    return () => sink.write(name, at * size, piece);
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

/** Where element `index` of a chunk is in the whole tensor. */
export function positionOf(ranges: readonly Range[], index: number): number {
  let rest = index;
  for (const { at, count } of ranges) {
    if (rest < count) return at + rest;
    rest -= count;
  }
  throw new RangeError(`Expected an index inside of the chunk, got ${index}.`);
}

/** Elements of all ranges. */
export function countOf(ranges: readonly Range[]): number {
  return ranges.reduce((sum, { count }) => sum + count, 0);
}
