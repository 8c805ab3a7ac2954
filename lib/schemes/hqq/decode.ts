import { groupedDequantizeArgs } from '../../compute/arguments.js';
import { bitsOf, bytesOf, widenBytes } from '../../compute/floats.js';
import { widenStep } from '../../compute/metadata.js';
import { resolveThreads } from '../../compute/run.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { countOf, type Range } from '../../containers/range.js';
import { readRanges } from '../../containers/ranges.js';
import type { Scratch } from '../../containers/scratch.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { allocateWords, packedRows } from '../../matrix/format.js';
import type { MetaCodes } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import { plain, quote } from '../../messages/text.js';
import { checkChunks, chunksOf, type GroupedChunk } from '../chunks.js';
import type { LayerLoad, WorkRun } from '../scheme.js';
import type { ReadLayer } from './read-layers.js';
import type { StoredMeta } from './read-meta.js';
import { widenPart } from './wide-meta.js';

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
  const meta = (name: 'scale' | 'zero') => readValues(source, layer[name], chunk.groups, groups, name, run);
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

async function readValues(
  source: TensorSource,
  { values: tensor, sets }: StoredMeta,
  ranges: readonly Range[],
  count: number,
  name: string,
  { slot, signal }: WorkRun,
): Promise<Float32Array> {
  if (sets !== undefined) {
    const codes = slot.take(`stored ${name}`, Uint8Array, count);
    const [scale, zero] = await Promise.all([
      readFloats(source, sets.scale, sets.count, slot.part(`${name} scale`), signal),
      readFloats(source, sets.zero, sets.count, slot.part(`${name} zero`), signal),
      readRanges(source, tensor, ranges, 1, codes, slot.part(name), signal),
    ]);
    const values = slot.take(name, Float32Array, count);
    let offset = 0;
    for (const range of ranges) {
      widenPart(codes.subarray(offset, offset + range.count), range.at, { scale, zero }, values, offset);
      offset += range.count;
    }
    return values;
  }
  const dtype = tensor.type.float!;
  const bytes = slot.take(`stored ${name}`, Uint8Array, count * DTYPES[dtype].bytes);
  await readRanges(source, tensor, ranges, DTYPES[dtype].bytes, bytes, slot.part(name), signal);
  if (dtype === 'float32') return bitsOf(bytes, dtype) as Float32Array;
  const values = slot.take(name, Float32Array, count);
  widenBytes(bytes, dtype, values);
  return values;
}

/** All numbers of a small tensor. */
async function readFloats(
  source: TensorSource,
  entry: TensorEntry,
  count: number,
  slot: Scratch,
  signal: AbortSignal,
): Promise<Float32Array<ArrayBuffer>> {
  const dtype = entry.type.float!;
  const bytes = slot.take('stored', Uint8Array, count * DTYPES[dtype].bytes);
  await source.read(entry, 0, bytes, signal);
  const values = slot.take('values', Float32Array, count);
  widenBytes(bytes, dtype, values);
  return values;
}

/** Arrays for a layer's codes, scales and zeros, to be filled. */
export function loadLayer({ name, shape, geometry, format, storage, packed, scale, zero }: ReadLayer): LayerLoad {
  const { rows, cols, groups } = geometry;
  const words = allocating(`the codes of ${quote(name)}`, () => allocateWords(format, packedRows(format, rows) * cols));
  const what = `the scales of ${quote(name)}`;
  const [scales, zeros] = allocating(what, () => [loadMeta(scale, groups), loadMeta(zero, groups)] as const);
  const { nbits, groupSize, axis } = storage;
  const meta = { ...(scales.bytes && { scale: scales.bytes }), ...(zeros.bytes && { zero: zeros.bytes }) };
  return {
    reads: [{ entry: packed, into: bytesOf(words) }, ...scales.reads, ...zeros.reads],
    widens: [...scales.widens, ...zeros.widens],
    steps: [...scales.steps, ...zeros.steps],
    finish: () => ({
      ...{ nbits, groupSize, axis, shape, packing: format.packing },
      ...{ packed: words, scale: scales.values, zero: zeros.values },
      ...(Object.keys(meta).length > 0 && { meta: Object.freeze(meta) }),
    }),
  };
}

/** Memory for scale or zero, which are widened: products read them so, and they are a small part of a layer. */
function loadMeta({ values: entry, sets }: StoredMeta, groups: number) {
  if (sets === undefined) return { ...loadFloats(entry, groups), steps: [], bytes: undefined };
  const codes = new Uint8Array(groups);
  const [scale, zero] = [loadFloats(sets.scale, sets.count), loadFloats(sets.zero, sets.count)];
  const bytes: MetaCodes = Object.freeze({ codes, scale: scale.values, zero: zero.values });
  const values = new Float32Array(groups);
  return {
    reads: [{ entry, into: codes }, ...scale.reads, ...zero.reads],
    widens: [...scale.widens, ...zero.widens],
    steps: [widenStep(bytes, values, resolveThreads())],
    ...{ values, bytes },
  };
}

function loadFloats(entry: TensorEntry, count: number) {
  const dtype = entry.type.float!;
  const values = new Float32Array(count);
  const into = dtype === 'float32' ? bytesOf(values) : new Uint8Array(count * DTYPES[dtype].bytes);
  const widens = dtype === 'float32' ? [] : [{ bytes: into, dtype, to: values }];
  return { reads: [{ entry, into }], widens, values };
}
