import type { LinearSite, TensorEntry, TensorSink } from './container.js';
import { type Range, readRanges, writeRanges } from './ranges.js';
import type { NumberSource } from './rounding.js';
import type { Scratch } from './scratch.js';

// Ranges of a layer's weight matrix, whichever way it is stored.

/** A weight matrix, and how it lies in its tensor. */
export type Lie = Pick<LinearSite, 'shape' | 'stored'>;

/** Elements that are turned at once: they lie in memory a second time. */
const BATCH_ELEMENTS = 1024 * 1024;
const BATCH_SEGMENTS = 16 * 1024;

/** The shape of the tensor that holds a weight matrix. */
export function storedShape({ shape: [outs, ins], stored }: Lie): readonly [number, number] {
  return stored === 'out-in' ? [outs, ins] : [ins, outs];
}

/** Where in its tensor element `position` of a weight matrix is, both row-major. */
export function storedPosition({ shape: [outs, ins], stored }: Lie, position: number): number {
  return stored === 'out-in' ? position : (position % ins) * outs + Math.floor(position / ins);
}

/** Fills `into` with ranges of a weight matrix `[out, in]`, one after the other. `size` is that of an element, in bytes. */
export async function readMatrix(
  source: NumberSource,
  entry: TensorEntry,
  lie: Lie,
  ranges: readonly Range[],
  size: 2 | 4,
  into: Uint8Array,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  if (lie.stored === 'out-in') return readRanges(source, entry, ranges, size, into, slot, signal);
  for (const { segments, count } of batches(lie, ranges)) {
    const turned = slot.take('turned', Uint8Array, count * size);
    await readRanges(source, entry, segments, size, turned, slot, signal);
    move(segments, lie.shape[1], elements(into, size), elements(turned, size), 'into');
  }
}

/** Writes `from` to ranges of a weight matrix `[out, in]`, one after the other. */
export async function writeMatrix(
  sink: TensorSink,
  name: string,
  lie: Lie,
  ranges: readonly Range[],
  size: 2 | 4,
  from: Uint8Array,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  if (lie.stored === 'out-in') return writeRanges(sink, name, ranges, size, from, signal);
  for (const { segments, count } of batches(lie, ranges)) {
    const turned = slot.take('turned', Uint8Array, count * size);
    move(segments, lie.shape[1], elements(from, size), elements(turned, size), 'out of');
    await writeRanges(sink, name, segments, size, turned, signal);
  }
}

/** Elements that lie side by side in a tensor `[in, out]`: one of each of some rows of the weight matrix. */
interface Segment extends Range {
  /** Where the first of them is among the elements of the ranges; each next one is a row later. */
  readonly first: number;
}

interface Batch {
  readonly segments: readonly Segment[];
  /** Elements of all. */
  readonly count: number;
}

function* batches(lie: Lie, ranges: readonly Range[]): Generator<Batch> {
  let segments: Segment[] = [];
  let count = 0;
  for (const segment of segmentsOf(lie, ranges)) {
    if (segments.length === BATCH_SEGMENTS || (count > 0 && count + segment.count > BATCH_ELEMENTS)) {
      yield { segments, count };
      [segments, count] = [[], 0];
    }
    segments.push(segment);
    count += segment.count;
  }
  if (count > 0) yield { segments, count };
}

/** In the order of the tensor, for sorted ranges. A range may begin and end within a row. */
function* segmentsOf({ shape: [outs, ins] }: Lie, ranges: readonly Range[]): Generator<Segment> {
  const blocks: { top: number; left: number; bottom: number; right: number; first: number }[] = [];
  let first = 0;
  for (const { at, count } of ranges) {
    const last = at + count - 1;
    const [top, bottom] = [Math.floor(at / ins), Math.floor(last / ins)];
    blocks.push({ top, left: at - top * ins, bottom, right: last - bottom * ins, first: first - at });
    first += count;
  }
  for (let column = 0; column < ins; column++) {
    for (const { top, left, bottom, right, first: offset } of blocks) {
      const from = column < left ? top + 1 : top;
      const to = column > right ? bottom - 1 : bottom;
      if (from <= to) yield { at: column * outs + from, count: to - from + 1, first: offset + from * ins + column };
    }
  }
}

/**
 * Copies what lies at bytes `at` and after of a tensor into `into`, as far as it is among ranges of its weight matrix `[out, in]`, of
 * which `from` is the bytes.
 */
export function copyStored(
  lie: Lie,
  ranges: readonly Range[],
  size: 2 | 4,
  from: Uint8Array,
  at: number,
  into: Uint8Array,
): void {
  const end = at + into.length;
  const copy = (position: number, bytes: number, offset: number) => {
    const [first, last] = [Math.max(at, position), Math.min(end, position + bytes)];
    if (first < last) into.set(from.subarray(offset + first - position, offset + last - position), first - at);
  };
  if (lie.stored === 'out-in') {
    let offset = 0;
    for (const range of ranges) {
      copy(size * range.at, size * range.count, offset);
      offset += size * range.count;
    }
    return;
  }
  const [, ins] = lie.shape;
  for (const segment of segmentsOf(lie, ranges)) {
    const last = Math.min(segment.count, Math.ceil(end / size) - segment.at);
    for (let k = Math.max(0, Math.floor(at / size) - segment.at); k < last; k++)
      copy(size * (segment.at + k), size, size * (segment.first + k * ins));
  }
}

/** Elements of a size, as they lie. */
function elements(bytes: Uint8Array, size: 2 | 4): Uint16Array | Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  return size === 2
    ? new Uint16Array(buffer, byteOffset, byteLength / 2)
    : new Uint32Array(buffer, byteOffset, byteLength / 4);
}

/** Moves elements between the ranges of a matrix, whose rows have `stride` of them, and its turned segments. */
function move(
  segments: readonly Segment[],
  stride: number,
  straight: Uint16Array | Uint32Array,
  turned: Uint16Array | Uint32Array,
  direction: 'into' | 'out of',
): void {
  const [{ first: corner, count: height } = { first: 0, count: 0 }] = segments;
  if (segments.every(({ first, count }, i) => first === corner + i && count === height)) {
    moveTiles(segments.length, height, corner, stride, straight, turned, direction);
    return;
  }
  let at = 0;
  for (const { first, count } of segments) {
    for (let k = 0, place = first; k < count; k++, place += stride) {
      if (direction === 'into') straight[place] = turned[at++]!;
      else turned[at++] = straight[place]!;
    }
  }
}

/** A part of a matrix: its first element, and how far its rows are apart. */
interface Place {
  readonly at: number;
  readonly stride: number;
}

/** Rows that are turned together: what is written of a column is a line of the cache, or half of one. */
const TOGETHER = 8;

/** Columns that are turned together: what is written of them stays in a cache until the rest of its lines is. */
const ABREAST = 512;

/** Writes `to[c][r] = from[r][c]` of some rows and columns. */
export function turn(
  from: Uint16Array | Uint32Array,
  { at, stride, rows, cols }: Place & { readonly rows: number; readonly cols: number },
  to: Uint16Array | Uint32Array,
  out: Place,
): void {
  for (let left = 0; left < cols; left += ABREAST) {
    const part = { at: at + left, stride, rows, cols: Math.min(ABREAST, cols - left) };
    turnPart(from, part, to, { at: out.at + left * out.stride, stride: out.stride });
  }
}

function turnPart(
  from: Uint16Array | Uint32Array,
  { at, stride, rows, cols }: Place & { readonly rows: number; readonly cols: number },
  to: Uint16Array | Uint32Array,
  out: Place,
): void {
  const whole = rows - (rows % TOGETHER);
  for (let row = 0; row < whole; row += TOGETHER) {
    const a = at + row * stride;
    const [b, c, d, e] = [a + stride, a + 2 * stride, a + 3 * stride, a + 4 * stride];
    const [f, g, h] = [a + 5 * stride, a + 6 * stride, a + 7 * stride];
    for (let col = 0, place = out.at + row; col < cols; col++, place += out.stride) {
      to[place] = from[a + col]!;
      to[place + 1] = from[b + col]!;
      to[place + 2] = from[c + col]!;
      to[place + 3] = from[d + col]!;
      to[place + 4] = from[e + col]!;
      to[place + 5] = from[f + col]!;
      to[place + 6] = from[g + col]!;
      to[place + 7] = from[h + col]!;
    }
  }
  for (let row = whole; row < rows; row++)
    for (let col = 0; col < cols; col++) to[out.at + col * out.stride + row] = from[at + row * stride + col]!;
}

/** Rows and columns that are moved together: what is read of them stays in a cache until the rest of its line is read. */
const TILE = 64;

/** The same of segments that are whole columns of some rows, side by side: as a rule they are. What is written is written line by line. */
function moveTiles(
  width: number,
  height: number,
  corner: number,
  stride: number,
  straight: Uint16Array | Uint32Array,
  turned: Uint16Array | Uint32Array,
  direction: 'into' | 'out of',
): void {
  if (direction === 'into') {
    turn(turned, { at: 0, stride: height, rows: width, cols: height }, straight, { at: corner, stride });
    return;
  }
  for (let top = 0; top < height; top += TILE) {
    const bottom = Math.min(height, top + TILE);
    for (let left = 0; left < width; left += TILE) {
      const right = Math.min(width, left + TILE);
      for (let column = left; column < right; column++) {
        const end = column * height + bottom;
        for (let at = column * height + top, place = corner + column + top * stride; at < end; at++, place += stride)
          turned[at] = straight[place]!;
      }
    }
  }
}
