import { groupedDequantizeArgs } from '../../compute/arguments.js';
import { bitsOf, bytesOf, widenBytes } from '../../compute/floats.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { countOf, type Range, readRanges } from '../../containers/ranges.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { allocateWords, packedRows } from '../../matrix/format.js';
import { allocating } from '../../messages/allocating.js';
import { plain, quote } from '../../messages/text.js';
import { checkChunks, chunksOf, type GroupedChunk } from '../chunks.js';
import type { LayerLoad, WorkRun } from '../scheme.js';
import type { ReadLayer } from './read-layers.js';

/** The chunks in which a quantized layer is read. Refuses one that cannot be: `checkChunks`. */
export function layerChunks({ name, geometry, storage: { axis }, format }: ReadLayer): Iterable<GroupedChunk> {
  const cut = { geometry, axis, format };
  checkChunks(plain(name), cut);
  return chunksOf(cut);
}

/** The weights of a chunk, rounded once to `dtype`, in the order of its ranges. In the slot's memory. */
export async function dequantizeChunk(
  source: TensorSource,
  layer: ReadLayer,
  chunk: GroupedChunk,
  dtype: DType,
  run: WorkRun,
): Promise<Uint8Array> {
  const { format, storage } = layer;
  const { rows, cols, step } = chunk;
  const { slot, signal } = run;
  const bytes = slot.take('packed', Uint8Array, step * cols * format.wordBytes);
  const groups = countOf(chunk.groups);
  const meta = (name: 'scale' | 'zero') => readMeta(source, layer[name], chunk.groups, groups, name, run);
  const [, scale, zero] = await Promise.all([
    readRanges(source, layer.packed, chunk.packed, format.wordBytes, bytes, slot, signal),
    meta('scale'),
    meta('zero'),
  ]);
  const packed =
    format.wordBytes === 1 ? bytes : new Int32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, step * cols);
  const weights = slot.take('weights', Uint8Array, rows * cols * DTYPES[dtype].bytes);
  const args = groupedDequantizeArgs({
    ...{ rows, cols, step, format, axis: storage.axis, packed, scale, zero, dtype, threads: run.threads },
    ...{ rounding: 'once', out: bitsOf(weights, dtype) },
  });
  await run.compute('dequantize', args);
  return weights;
}

async function readMeta(
  source: TensorSource,
  tensor: TensorEntry,
  ranges: readonly Range[],
  count: number,
  name: string,
  { slot, signal }: WorkRun,
): Promise<Float32Array> {
  const dtype = tensor.type.float!;
  const bytes = slot.take(`stored ${name}`, Uint8Array, count * DTYPES[dtype].bytes);
  await readRanges(source, tensor, ranges, DTYPES[dtype].bytes, bytes, slot.part(name), signal);
  if (dtype === 'float32') return bitsOf(bytes, dtype) as Float32Array;
  const values = slot.take(name, Float32Array, count);
  widenBytes(bytes, dtype, values);
  return values;
}

/** Arrays for a layer's codes, scales and zeros, to be filled. */
export function loadLayer({ name, shape, geometry, format, storage, packed, scale, zero }: ReadLayer): LayerLoad {
  const { rows, cols, groups } = geometry;
  const words = allocating(`the codes of ${quote(name)}`, () => allocateWords(format, packedRows(format, rows) * cols));
  const meta = (entry: TensorEntry) => {
    const dtype = entry.type.float!;
    const values = new Float32Array(groups);
    const into = dtype === 'float32' ? bytesOf(values) : new Uint8Array(groups * DTYPES[dtype].bytes);
    return { read: { entry, into }, values, widens: dtype === 'float32' ? [] : [{ bytes: into, dtype, to: values }] };
  };
  const [scales, zeros] = [meta(scale), meta(zero)];
  const { nbits, groupSize, axis } = storage;
  return {
    reads: [{ entry: packed, into: bytesOf(words) }, scales.read, zeros.read],
    widens: [...scales.widens, ...zeros.widens],
    finish: () => ({
      ...{ nbits, groupSize, axis, shape, packing: format.packing },
      ...{ packed: words, scale: scales.values, zero: zeros.values },
    }),
  };
}
