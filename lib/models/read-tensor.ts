import type { FloatBits, Step } from '../../binding.js';
import { groupedDequantizeArgs } from '../compute/arguments.js';
import { bytesOf, roundThrough, widenBytes } from '../compute/floats.js';
import { widenBytesLater } from '../compute/later.js';
import { largeFloats } from '../compute/memory.js';
import { resolveThreads } from '../compute/run.js';
import type { TensorEntry, TensorSource } from '../containers/container.js';
import { numbersOf, STORED_TYPES } from '../containers/stored-types.js';
import { yieldIfDue } from '../files/event-loop.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { allocate, DTYPES, type DType } from '../matrix/dtype.js';
import { formatNamed } from '../matrix/format.js';
import { geometryOf } from '../matrix/geometry.js';
import { checkDtype, MAX_WEIGHTS } from '../matrix/validate.js';
import type { RunOptions } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { HqqError, show } from '../messages/errors.js';
import { quote } from '../messages/text.js';
import type { LayerLoad, StoredLayer } from '../schemes/scheme.js';
import { schemeOf } from './layers.js';

// Reading a tensor, dense or quantized, as numbers: where its bytes go, and how they become numbers.

/** How numbers of a tensor are computed. */
export interface TensorOptions {
  /**
   * `'once'` computes in float32 and rounds the result to `dtype`. `'each'` rounds after every operation: with the layer's own
   * compute dtype, the bits that Python's `HQQLinear.dequantize()` gives.
   *
   * @default 'once'
   */
  readonly rounding?: 'once' | 'each' | undefined;
  /**
   * Type that the numbers are rounded to. They come as float32 all the same, which holds each of them exactly.
   *
   * @default 'float32'; with rounding 'each' that in which Python computes the layer
   */
  readonly dtype?: DType | undefined;
}

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function checkTensorOptions({ rounding, dtype }: TensorOptions): void {
  if (rounding !== undefined && rounding !== 'once' && rounding !== 'each') {
    throw new HqqError('ERR_INVALID_OPTION', `Expected rounding to be one of once, each, got ${show(rounding)}.`);
  }
  if (dtype !== undefined) checkDtype(dtype, 'dtype', 'ERR_INVALID_OPTION');
}

/** The type of a dense tensor's numbers. @throws {HqqError} `ERR_INVALID_ARGUMENT` where they are none. */
function floatOf({ name, type }: TensorEntry): DType {
  const dtype = numbersOf(type);
  if (dtype !== undefined) return dtype;
  const floats = [...STORED_TYPES.values()]
    .filter(numbersOf)
    .map((float) => float.name)
    .join(', ');
  const message = `Expected the name of a floating-point tensor (${floats}), got ${quote(name)}, which is ${type.name}.`;
  throw new HqqError('ERR_INVALID_ARGUMENT', message);
}

/** Numbers of a dense tensor. */
function countOf({ type, begin, end }: TensorEntry): number {
  return (end - begin) / type.blockBytes;
}

/** Memory for the numbers of a dense tensor. @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY` */
export function floatsFor(entry: TensorEntry): OwnedFloat32Array {
  floatOf(entry);
  return allocating(quote(entry.name), () => largeFloats(countOf(entry)));
}

/** Reads a dense tensor, rounded to `dtype`. Blocks until it is read. */
export function readDenseSync(
  source: TensorSource,
  entry: TensorEntry,
  { dtype: to = 'float32' }: TensorOptions,
): OwnedFloat32Array {
  const values = floatsFor(entry);
  const { type, name } = entry;
  if (type.float === 'float32') source.readSync(entry, 0, bytesOf(values));
  else {
    const bytes = allocating(quote(name), () => new Uint8Array(entry.end - entry.begin));
    source.readSync(entry, 0, bytes);
    if (type.rounded !== undefined) values.set(new Float64Array(bytes.buffer));
    else widenBytes(bytes, floatOf(entry), values);
  }
  return roundThrough(values, to);
}

/** Bytes that are read before they become numbers. */
const PIECE_BYTES = 1 << 21;

/** Memory for what is read and is to be converted: of a model that is read tensor by tensor, the garbage would be the larger part. */
export class Pieces {
  readonly #free: Uint8Array[] = [];

  take(bytes: number): Uint8Array {
    if (bytes < PIECE_BYTES / 2) return new Uint8Array(bytes);
    return this.#free.pop() ?? new Uint8Array(PIECE_BYTES);
  }

  giveBack(piece: Uint8Array): void {
    if (piece.length === PIECE_BYTES && this.#free.length < 2) this.#free.push(piece);
  }
}

/** Fills `into` with the numbers of a dense tensor from its number `at` on, without blocking the event loop. */
export async function readDense(
  source: TensorSource,
  entry: TensorEntry,
  at: number,
  into: Float32Array,
  pieces: Pieces,
  run: RunOptions,
): Promise<void> {
  const { type } = entry;
  const { blockBytes: size } = type;
  const dtype = floatOf(entry);
  if (type.float === 'float32') return source.read(entry, at * size, bytesOf(into), run.signal);
  // One piece is read while the one before it is widened: a tensor is never in memory twice.
  const length = Math.min(PIECE_BYTES, into.length * size);
  const taken = [pieces.take(length), pieces.take(into.length * size > length ? length : 0)];
  let widening: Promise<void> = Promise.resolve();
  try {
    for (let done = 0, turn = 0; done < into.length; done += length / size, turn ^= 1) {
      const values = into.subarray(done, done + length / size);
      const bytes = taken[turn]!.subarray(0, values.length * size);
      await source.read(entry, (at + done) * size, bytes, run.signal);
      await widening;
      if (type.rounded !== undefined) await roundInTurns(bytes, values);
      else widening = widenBytesLater(bytes, dtype, values, run);
      widening.catch(() => {}); // it is awaited later
    }
    await widening;
  } finally {
    await widening.catch(() => {}); // nobody may touch `into`, or the pieces, until nothing computes with them
    for (const piece of taken) pieces.giveBack(piece);
  }
}

/** Rows that lie this near are read with one call, and what is between them. */
const GAP_ROWS = 8;

/** Fills `out` with rows of a dense matrix, in the order of `rows`, where one may stand any number of times. */
export async function readRows(
  source: TensorSource,
  entry: TensorEntry,
  rows: ArrayLike<number>,
  out: Float32Array,
  pieces: Pieces,
  run: RunOptions,
): Promise<void> {
  const cols = out.length / rows.length;
  if (isRun(rows)) return readDense(source, entry, rows[0]! * cols, out, pieces, run);
  const mostRows = Math.max(1, Math.floor(PIECE_BYTES / (cols * Float32Array.BYTES_PER_ELEMENT)));
  const order = Array.from({ length: rows.length }, (_, i) => i).sort((a, b) => rows[a]! - rows[b]!);
  let values = new Float32Array(0);
  for (let from = 0, to = 0; from < order.length; from = to) {
    const first = rows[order[from]!]!;
    let last = first;
    for (; to < order.length; to++) {
      const row = rows[order[to]!]!;
      if (row - last > GAP_ROWS || row - first >= mostRows) break;
      last = row;
    }
    const length = (last - first + 1) * cols;
    if (values.length < length) values = new Float32Array(length);
    await readDense(source, entry, first * cols, values.subarray(0, length), pieces, run);
    for (const at of order.slice(from, to)) {
      const begin = (rows[at]! - first) * cols;
      out.set(values.subarray(begin, begin + cols), at * cols);
    }
    await yieldIfDue();
    run.signal?.throwIfAborted();
  }
}

/** Whether rows lie one after the other. */
function isRun(rows: ArrayLike<number>): boolean {
  for (let i = 1; i < rows.length; i++) if (rows[i] !== rows[0]! + i) return false;
  return rows.length > 0;
}

/** Numbers of float64 that are rounded before the event loop may have its turn. */
const TURN_NUMBERS = 1 << 16;

async function roundInTurns(bytes: Uint8Array, to: Float32Array): Promise<void> {
  const from = new Float64Array(bytes.buffer, bytes.byteOffset, to.length);
  for (let at = 0; at < from.length; at += TURN_NUMBERS) {
    to.set(from.subarray(at, at + TURN_NUMBERS), at);
    await yieldIfDue();
  }
}

/** Where the bytes of a layer go, what then is computed, and where its weights are. */
export function layerRead(
  layer: StoredLayer,
  { rounding = 'once', dtype: given }: TensorOptions,
  threads?: number,
  into?: Float32Array,
) {
  const { shape, name, storage } = layer;
  const count = shape[0] * shape[1];
  if (count > MAX_WEIGHTS) {
    const message = `Expected at most ${MAX_WEIGHTS} weights, got ${shape[0]} x ${shape[1]} in ${quote(name)}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message} Use dequantizeModel, which works in parts.`);
  }
  const dtype = given ?? (rounding === 'each' ? storage.computeDtype : undefined) ?? 'float32';
  const scheme = schemeOf(layer);
  const out = allocating(
    `the weights of ${quote(name)}`,
    () => (into as OwnedFloat32Array | undefined) ?? allocate(dtype, count),
  );
  const resolved = resolveThreads(threads);
  const numbers = rounding === 'once' ? exactRead(layer, dtype, out, resolved) : undefined;
  const load: LayerLoad = numbers?.load ?? scheme.load(layer);
  const steps = (): readonly Step[] => {
    if (numbers) return numbers.steps;
    const { packed, scale, zero, packing, groupSize, axis } = load.finish();
    const { rows, cols } = geometryOf(shape, { groupSize, axis });
    const format = formatNamed(packing)!;
    const args = groupedDequantizeArgs({
      ...{ rows, cols, format, axis, packed, scale, zero, dtype, rounding, out, threads: resolved },
    });
    return [{ operation: 'dequantize', args }];
  };
  const finish = () => {
    if (out instanceof Float32Array) return out;
    const values = allocating(`the weights of ${quote(name)}`, () => new Float32Array(count));
    widenBytes(bytesOf(out), dtype, values);
    return values;
  };
  const finishLater = async (run: RunOptions) => {
    if (out instanceof Float32Array) return out;
    const values = allocating(`the weights of ${quote(name)}`, () => new Float32Array(count));
    await widenBytesLater(bytesOf(out), dtype, values, run);
    return values;
  };
  return { load, steps, finish, finishLater };
}

/** What reads the numbers of a layer as its scheme knows them, and rounds them to `dtype`; undefined where codes say them. */
function exactRead(layer: StoredLayer, dtype: DType, out: FloatBits, threads: number) {
  const wide =
    out instanceof Float32Array
      ? out
      : allocating(`the weights of ${quote(layer.name)}`, () => new Float32Array(out.length));
  const exact = schemeOf(layer).loadNumbers?.(layer, wide, threads);
  if (exact === undefined) return undefined;
  const { reads, steps } = exact;
  const narrow = { from: wide, fromDtype: DTYPES.float32.id, to: out, toDtype: DTYPES[dtype].id, threads };
  const finish = (): never => {
    throw new RangeError('Expected no codes of what is read as numbers.');
  };
  return {
    load: { reads, finish },
    steps: wide === out ? steps : [...steps, { operation: 'convert', args: narrow } as const],
  };
}
