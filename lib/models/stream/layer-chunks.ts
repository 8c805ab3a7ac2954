import type { Backend } from '../../../binding.js';
import { groupedDequantizeArgs } from '../../compute/arguments.js';
import { runTask } from '../../compute/run.js';
import type { CheckpointTensor } from '../../containers/safetensors/checkpoint.js';
import { OPTIONS, type ResolvedQuantConfig, resolveQuantConfig } from '../../matrix/config.js';
import { DTYPES, type DType, dtypeFromSafetensors } from '../../matrix/dtype.js';
import { plain } from '../../messages/text.js';
import { bitsOf, widenBytes } from '../../schemes/hqq/half.js';
import type { ReadLayer } from '../../schemes/hqq/read-layers.js';
import { type Chunk, checkChunks, chunksOf, countOf, type Range } from './chunks.js';
import type { Scratch } from './pipeline.js';
import { readRanges } from './transfer.js';

/** Chunks need a solver's block size to end at; dequantizing has none of its own, and any will do. */
const ANY: ResolvedQuantConfig = resolveQuantConfig({ solver: OPTIONS.solver.default });

/** Refuses a layer that cannot be read in chunks: `checkChunks`. */
export function checkLayer({ module, geometry, axis, format }: ReadLayer): void {
  checkChunks(plain(module), { geometry, axis, format, config: ANY });
}

/** The chunks in which a quantized layer is read. */
export function layerChunks({ geometry, axis, format }: ReadLayer): Iterable<Chunk> {
  return chunksOf({ geometry, axis, format, config: ANY });
}

/** How a chunk is dequantized. */
export interface ChunkRun {
  readonly backend: Backend;
  readonly threads: number;
  readonly slot: Scratch;
  readonly signal: AbortSignal;
}

/** The weights of a chunk, rounded once to `dtype`, in the order of its ranges. In the slot's memory. */
export async function dequantizeChunk(
  layer: ReadLayer,
  chunk: Chunk,
  dtype: DType,
  run: ChunkRun,
): Promise<Uint8Array> {
  const { format, axis } = layer;
  const { rows, cols, step } = chunk;
  const { slot, signal } = run;
  const bytes = slot.take('packed', Uint8Array, step * cols * format.wordBytes);
  const groups = countOf(chunk.groups);
  const [, scale, zero] = await Promise.all([
    readRanges(layer.packed, chunk.packed, format.wordBytes, bytes, signal),
    readMeta(layer.scale, chunk.groups, groups, 'scale', slot, signal),
    readMeta(layer.zero, chunk.groups, groups, 'zero', slot, signal),
  ]);
  const packed =
    format.wordBytes === 1 ? bytes : new Int32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, step * cols);
  const weights = slot.take('weights', Uint8Array, rows * cols * DTYPES[dtype].bytes);
  const args = groupedDequantizeArgs({
    ...{ rows, cols, step, format, axis, packed, scale, zero, dtype, threads: run.threads },
    ...{ rounding: 'once', out: bitsOf(weights, dtype) },
  });
  await runTask(run.backend, 'dequantize', args, { signal });
  return weights;
}

async function readMeta(
  tensor: CheckpointTensor,
  ranges: readonly Range[],
  count: number,
  name: string,
  slot: Scratch,
  signal: AbortSignal,
): Promise<Float32Array> {
  const dtype = dtypeFromSafetensors(tensor.entry.dtype)!;
  const bytes = slot.take(`stored ${name}`, Uint8Array, count * DTYPES[dtype].bytes);
  await readRanges(tensor, ranges, DTYPES[dtype].bytes, bytes, signal);
  if (dtype === 'float32') return bitsOf(bytes, dtype) as Float32Array;
  const values = slot.take(name, Float32Array, count);
  widenBytes(bytes, dtype, values);
  return values;
}
