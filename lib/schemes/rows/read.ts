import { groupedDequantizeArgs, packArgs } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import { resolveThreads } from '../../compute/run.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { countOf, type Ranges } from '../../containers/range.js';
import { readRanges } from '../../containers/ranges.js';
import { Scratch } from '../../containers/scratch.js';
import { NBITS } from '../../matrix/config.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { allocateWords, FORMATS, formatFor, holdsRows, packedRows } from '../../matrix/format.js';
import { allocating } from '../../messages/allocating.js';
import { plain, quote } from '../../messages/text.js';
import { CHUNK_WEIGHTS } from '../chunks.js';
import type { LayerLoad, StoredLayer, WorkRun } from '../scheme.js';
import { checkRows, type RowChunk, rowChunks, rowsFrom } from './chunks.js';

/** A layer whose groups are parts of its rows, found in a model. */
export interface RowLayer extends StoredLayer {
  /** Output features that are packed together. */
  readonly together: number;
  /**
   * Where groups are no neighbours (act-order): the group of each input feature. Each has `storage.groupSize` of them.
   */
  readonly groupOf?: Uint32Array;
}

/** What is read of some rows of a layer, and what it then holds. */
export interface RowParts {
  readonly reads: readonly { readonly entry: TensorEntry; readonly ranges: Ranges; readonly size: number }[];
  /**
   * Turns what was read into codes `[rows, inFeatures]`, and scales and zeros `[rows, groups of a row]`. Bytes of `read` lie as
   * aligned as their elements. Takes what it needs between from `slot`.
   */
  unpack(read: readonly Uint8Array[], into: Unpacked, slot: Scratch): void;
}

/** Rows of a layer, a code a byte. */
export interface Unpacked {
  readonly codes: Uint8Array;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
}

/** What a format says of some rows of its layers. */
export type PartsOf<Layer extends RowLayer> = (layer: Layer, chunk: RowChunk) => RowParts;

const BYTES = FORMATS[0]!;

/**
 * Output features that are decoded at once, if these are no more weights than a chunk has: fewer lie in shorter pieces of the file, and
 * what is between such pieces is read with them.
 */
const NARROW = 64;

/** The parts in which a layer is decoded: a chunk at most, and half of one where rows are short, since each weight is here as a code, too. */
export function layerRows({ name, shape, together }: RowLayer): Iterable<RowChunk> {
  checkRows(plain(name), shape, together);
  return rowChunks(shape, together, Math.min(CHUNK_WEIGHTS, Math.max(CHUNK_WEIGHTS / 2, NARROW * shape[1])));
}

/** The weights of some rows, rounded once to `dtype`. In the slot's memory. */
export async function decodeRows<Layer extends RowLayer>(
  source: TensorSource,
  layer: Layer,
  chunk: RowChunk,
  dtype: DType,
  { slot, signal, threads, compute }: WorkRun,
  partsOf: PartsOf<Layer>,
): Promise<Uint8Array> {
  const { groupSize } = layer.storage;
  const { reads, unpack } = partsOf(layer, chunk);
  const read = reads.map(({ ranges, size }, i) => slot.take(`stored ${i}`, Uint8Array, countOf(ranges) * size));
  const reading = reads.map(({ entry, ranges, size }, i) =>
    readRanges(source, entry, ranges, size, read[i]!, slot.part(`stored ${i}`), signal),
  );
  for (const result of await Promise.allSettled(reading)) if (result.status === 'rejected') throw result.reason;
  const groups = chunk.count / groupSize;
  const into = {
    codes: slot.take('codes', Uint8Array, chunk.count),
    scale: slot.take('scale', Float32Array, groups),
    zero: slot.take('zero', Float32Array, groups),
  };
  unpack(read, into, slot.part('unpack'));
  const order = layer.groupOf && orderOf(layer.groupOf, groupSize);
  const [, cols] = layer.shape;
  const packed = order
    ? gather(into.codes, order, cols, slot.take('ordered codes', Uint8Array, chunk.count))
    : into.codes;
  const weights = slot.take('weights', Uint8Array, chunk.count * DTYPES[dtype].bytes);
  const args = groupedDequantizeArgs({
    ...{ rows: groups, cols: groupSize, format: BYTES, axis: 1, packed, scale: into.scale, zero: into.zero, dtype },
    ...{ rounding: 'once', threads, out: bitsOf(weights, dtype) },
  });
  await compute('dequantize', args);
  if (!order) return weights;
  const numbers = bitsOf(weights, dtype);
  const placed = slot.take('placed weights', Uint8Array, weights.length);
  scatter(numbers, order, cols, bitsOf(placed, dtype));
  return placed;
}

/** Arrays for a layer's codes, scales and zeros, to be filled. */
export function loadRows<Layer extends RowLayer>(layer: Layer, partsOf: PartsOf<Layer>): LayerLoad {
  const { name, shape, storage, groupOf } = layer;
  const [rows, cols] = shape;
  const count = rows * cols;
  // Groups that are no neighbours are groups of one weight each.
  const groupSize = groupOf ? 1 : storage.groupSize;
  const nbits = NBITS.findLast((bits) => Number.isInteger(bits) && bits >= storage.nbits)!;
  const groups = count / groupSize;
  const narrow = formatFor(nbits);
  const format = holdsRows(narrow, groups) && !groupOf ? narrow : BYTES;
  const { reads, unpack } = partsOf(layer, rowsFrom(0, rows, cols));
  const memory = allocating(`the codes of ${quote(name)}`, () => ({
    read: reads.map(({ entry: { begin, end } }) => new Uint8Array(end - begin)),
    codes: new Uint8Array(count),
    scale: new Float32Array(count / storage.groupSize),
    zero: new Float32Array(count / storage.groupSize),
    packed: format === BYTES ? undefined : allocateWords(format, packedRows(format, groups) * groupSize),
  }));
  const { read, codes, packed } = memory;
  let [scale, zero] = [memory.scale, memory.zero];
  return {
    reads: reads.map(({ entry }, i) => ({ entry, into: read[i]! })),
    prepare() {
      unpack(read, memory, new Scratch());
      if (!groupOf) return;
      [scale, zero] = allocating(`the scales of ${quote(name)}`, () => [
        spread(memory.scale, groupOf, rows),
        spread(memory.zero, groupOf, rows),
      ]);
    },
    steps:
      packed === undefined
        ? []
        : [
            {
              operation: 'pack',
              args: packArgs({ rows: groups, cols: groupSize, format, codes, packed, threads: resolveThreads() }),
            },
          ],
    finish: () => ({
      ...{ nbits, groupSize, axis: 1, shape, packing: format.packing },
      ...{ packed: packed ?? codes, scale, zero },
    }),
  };
}

/** Input features, group after group. */
function orderOf(groupOf: Uint32Array, groupSize: number): Uint32Array {
  const next = Uint32Array.from({ length: groupOf.length / groupSize }, (_, group) => group * groupSize);
  const order = new Uint32Array(groupOf.length);
  groupOf.forEach((group, feature) => {
    order[next[group]!++] = feature;
  });
  return order;
}

function gather(codes: Uint8Array, order: Uint32Array, cols: number, to: Uint8Array): Uint8Array {
  for (let row = 0; row < codes.length; row += cols)
    for (let i = 0; i < cols; i++) to[row + i] = codes[row + order[i]!]!;
  return to;
}

function scatter<T extends Float32Array | Uint16Array>(from: T, order: Uint32Array, cols: number, to: T): void {
  for (let row = 0; row < from.length; row += cols) for (let i = 0; i < cols; i++) to[row + order[i]!] = from[row + i]!;
}

/** One number for each weight, of one for each group of a row. */
function spread(values: Float32Array, groupOf: Uint32Array, rows: number): Float32Array<ArrayBuffer> {
  const cols = groupOf.length;
  const groups = values.length / rows;
  const wide = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < cols; i++) wide[row * cols + i] = values[row * groups + groupOf[i]!]!;
  }
  return wide;
}
