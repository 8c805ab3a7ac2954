import { whenAllEnd } from '../files/event-loop.js';
import type { TensorEntry, TensorSink } from './container.js';
import { beginOf, countAt, eachOf, lengthOf, type Made, type Range, type Ranges } from './range.js';
import type { NumberSource } from './rounding.js';
import type { Scratch } from './scratch.js';

// Moving ranges of tensors between files and buffers.

export type { Range } from './range.js';

/** System calls under way at once for one chunk: enough to keep the threads of libuv busy. */
const CALLS = 16;

/** Ranges of fewer bytes cost more in calls than what lies between them costs in bytes: they are read together with it. */
const SHORT_BYTES = 16 * 1024;

/** Bytes from one short range to the next up to which that holds. */
const NEAR_BYTES = 64 * 1024;

/** Most bytes that are read together, unless they are one range. */
const BAND_BYTES = 256 * 1024;

/** Ranges `first` to `next` that lie near each other, and the one range that holds them all. */
interface Band {
  readonly span: Range;
  readonly first: number;
  readonly next: number;
}

function* bands(ranges: Ranges, size: number): Generator<Band> {
  const length = lengthOf(ranges);
  for (let first = 0; first < length; ) {
    const at = beginOf(ranges, first);
    let end = at + countAt(ranges, first);
    let next = first + 1;
    for (; next < length; next++) {
      const begin = beginOf(ranges, next);
      const count = countAt(ranges, next);
      const near = begin >= end && (begin + count - end) * size <= NEAR_BYTES;
      if (!near || count * size > SHORT_BYTES || (begin + count - at) * size > BAND_BYTES) break;
      end = begin + count;
    }
    yield { span: { at, count: end - at }, first, next };
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
  ranges: Ranges,
  size: number,
  into: Uint8Array,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  let offset = 0;
  const direct: (() => Promise<void>)[] = [];
  for (const { span, first, next } of bands(ranges, size)) {
    if (next === first + 1) {
      const target = into.subarray(offset, (offset += span.count * size));
      direct.push(() => source.read(entry, span.at * size, target, signal));
      continue;
    }
    const band = slot.take('band', Uint8Array, span.count * size);
    await source.read(entry, span.at * size, band, signal);
    offset = gather(ranges, { span, first, next }, size, band, into, offset);
  }
  await inBatches(direct, signal);
}

/** Elements that are copied one by one sooner than views of them are made. */
const FEW = 128;

/** Copies the ranges of a band, one after the other, to byte `offset` of `into`. Returns where they end. */
function gather(
  ranges: Ranges,
  { span, first, next }: Band,
  size: number,
  band: Uint8Array,
  into: Uint8Array,
  offset: number,
): number {
  const aligned = (into.byteOffset + offset) % 4 === 0;
  const words = size === 4 && aligned ? new Int32Array(into.buffer, into.byteOffset, into.byteLength >>> 2) : undefined;
  const from = words && new Int32Array(band.buffer, band.byteOffset, band.byteLength >>> 2);
  let to = offset;
  for (let i = first; i < next; i++) {
    const start = beginOf(ranges, i) - span.at;
    const count = countAt(ranges, i);
    if (words && count <= FEW) {
      for (let k = 0, at = to >>> 2; k < count; k++) words[at + k] = from![start + k]!;
    } else into.set(band.subarray(start * size, (start + count) * size), to);
    to += count * size;
  }
  return to;
}

/** Writes `made` to ranges of tensor `name`, one after the other. */
export async function writeRanges(
  sink: TensorSink,
  name: string,
  ranges: Ranges,
  size: number,
  made: Uint8Array | Made,
  signal: AbortSignal,
): Promise<void> {
  if (lengthOf(ranges) > CALLS && isShort(ranges, size)) {
    return sink.writePieces(name, inBytes(ranges, size), made, signal);
  }
  const from = made instanceof Uint8Array ? made : await made.bytes();
  let offset = 0;
  const calls = [...eachOf(ranges)].map(({ at, count }) => {
    const piece = from.subarray(offset, (offset += count * size));
    return () => sink.write(name, at * size, piece);
  });
  await inBatches(calls, signal);
}

const isShort = (ranges: Ranges, size: number): boolean =>
  'rows' in ranges ? ranges.count * size <= SHORT_BYTES : ranges.every(({ count }) => count * size <= SHORT_BYTES);

function inBytes(ranges: Ranges, size: number): Ranges {
  if (!('rows' in ranges)) return ranges.map(({ at, count }) => ({ at: at * size, count: count * size }));
  const { at, count, rows, step } = ranges;
  return { at: at * size, count: count * size, rows, step: step * size };
}

async function inBatches(tasks: readonly (() => Promise<void>)[], signal: AbortSignal): Promise<void> {
  for (let first = 0; first < tasks.length; first += CALLS) {
    signal.throwIfAborted();
    const calls = tasks.slice(first, first + CALLS).map((task) => task());
    // All of them, also when one fails: buffers are given to the next job only when nothing writes to them any more.
    await whenAllEnd(calls);
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
