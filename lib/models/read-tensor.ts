import { groupedDequantizeArgs } from '../compute/arguments.js';
import { bytesOf, roundThrough, roundThroughLater, widenBytes, widenBytesLater } from '../compute/floats.js';
import { largeFloats } from '../compute/memory.js';
import { resolveThreads } from '../compute/run.js';
import type { TensorEntry } from '../containers/container.js';
import { numbersOf, STORED_TYPES } from '../containers/stored-types.js';
import { yieldIfDue } from '../files/event-loop.js';
import { allocate, type DType } from '../matrix/dtype.js';
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

/** Numbers of float64 that are rounded before the event loop may have its turn. */
const TURN_NUMBERS = 1 << 16;

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

/** Where the bytes of a dense tensor go, and how they become numbers. */
export function prepareDense({ name, type, begin, end }: TensorEntry, { dtype: to = 'float32' }: TensorOptions) {
  const dtype = numbersOf(type);
  if (dtype === undefined) {
    const floats = [...STORED_TYPES.values()]
      .filter(numbersOf)
      .map((float) => float.name)
      .join(', ');
    const message = `Expected the name of a floating-point tensor (${floats}), got ${quote(name)}, which is ${type.name}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', message);
  }
  const { rounded } = type;
  const count = (end - begin) / type.blockBytes;
  const values = allocating(quote(name), () => largeFloats(count));
  const bytes = type.float === 'float32' ? bytesOf(values) : allocating(quote(name), () => new Uint8Array(end - begin));
  const finish = () => {
    if (rounded !== undefined) values.set(new Float64Array(bytes.buffer));
    else if (dtype !== 'float32') widenBytes(bytes, dtype, values);
    return roundThrough(values, to);
  };
  const finishLater = async (run: RunOptions) => {
    if (rounded !== undefined) await roundInTurns(new Float64Array(bytes.buffer), values, run);
    else if (dtype !== 'float32') await widenBytesLater(bytes, dtype, values, run);
    return roundThroughLater(values, to, run);
  };
  return { bytes, finish, finishLater };
}

async function roundInTurns(from: Float64Array, to: Float32Array, { signal }: RunOptions): Promise<void> {
  for (let at = 0; at < from.length; at += TURN_NUMBERS) {
    to.set(from.subarray(at, at + TURN_NUMBERS), at);
    await yieldIfDue();
    signal?.throwIfAborted();
  }
}

/** Where the bytes of a layer go, what then is computed, and where its weights are. */
export function prepareLayer(layer: StoredLayer, { rounding = 'once', dtype: given }: TensorOptions, threads?: number) {
  const { shape, name, storage } = layer;
  const count = shape[0] * shape[1];
  if (count > MAX_WEIGHTS) {
    const message = `Expected at most ${MAX_WEIGHTS} weights, got ${shape[0]} x ${shape[1]} in ${quote(name)}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message} Use dequantizeModel, which works in parts.`);
  }
  const dtype = given ?? (rounding === 'each' ? storage.computeDtype : 'float32');
  const load: LayerLoad = schemeOf(layer).load(layer);
  const out = allocating(`the weights of ${quote(name)}`, () => allocate(dtype, count));
  const resolved = resolveThreads(threads);
  const args = () => {
    const { packed, scale, zero, packing, groupSize, axis } = load.finish();
    const { rows, cols } = geometryOf(shape, { groupSize, axis });
    const format = formatNamed(packing)!;
    return groupedDequantizeArgs({
      rows,
      cols,
      format,
      axis,
      packed,
      scale,
      zero,
      dtype,
      rounding,
      out,
      threads: resolved,
    });
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
  return { load, args, finish, finishLater };
}
