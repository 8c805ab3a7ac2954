import { bytesOf, narrowBytes, widenBytes } from '../../compute/floats.js';
import type { Scratch } from '../../containers/scratch.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { CHUNK_WEIGHTS } from '../chunks.js';
import type { Piece, PlannedLayer, WorkRun } from '../scheme.js';
import { columnsOf, type RowChunk, rowChunks } from './chunks.js';
import { groupsOfRow, type RowForm } from './form.js';
import { transpose } from './streams.js';

// Layers that lie `[in, out]`, as GPTQ and AWQ have them: rows of the weight matrix are columns there.

/** Output features that are kept in one chunk: their codes and zeros fill whole words, whatever the bits. */
export const TOGETHER = 32;

/** Output features of a chunk below which writing it costs more in calls than in bytes: a call is made for each input feature. */
const NARROW = 128;

/** How much larger than others a chunk may be for that. */
const NARROW_FACTOR = 4;

/** Chunks of such a layer, as they are written. */
export const columnChunks = (shape: readonly [number, number]): Iterable<RowChunk> =>
  rowChunks(shape, TOGETHER, Math.min(NARROW_FACTOR * CHUNK_WEIGHTS, Math.max(CHUNK_WEIGHTS, NARROW * shape[1])));

/** Columns of a chunk in a tensor `[height, outFeatures]`, or with `perWord` output features in an element. */
export function columnPiece(
  tensor: string,
  { first, rows }: RowChunk,
  [height, width]: readonly [number, number],
  perElement: number,
  bytes: Piece['bytes'],
  elementBytes: number,
): Piece {
  return { tensor, ranges: columnsOf(height, width, first / perElement, rows / perElement), elementBytes, bytes };
}

/** Scales of a chunk, `[rows, groups]`, as columns of `<layer>.scales`. */
export function scalePiece(
  { site, form }: PlannedLayer<RowForm>,
  chunk: RowChunk,
  scale: Float32Array,
  { slot }: WorkRun,
): Piece {
  const groups = groupsOfRow(form);
  const turned = transpose(scale, chunk.rows, groups, slot.take('turned scale', Float32Array, scale.length));
  const dtype = form.config.scaleDtype;
  const size = DTYPES[dtype].bytes;
  let bytes = bytesOf(turned);
  if (dtype !== 'float32') {
    bytes = slot.take('stored scale', Uint8Array, scale.length * size);
    narrowBytes(turned, dtype, bytes);
  }
  return columnPiece(`${site.name}.scales`, chunk, [groups, form.shape[0]], 1, bytes, size);
}

/** Scales that were read as columns, as `[rows, groups]`. */
export function unpackScales(
  bytes: Uint8Array,
  dtype: DType,
  rows: number,
  groups: number,
  scale: Float32Array,
  slot: Scratch,
): void {
  const turned = slot.take('turned scale', Float32Array, rows * groups);
  widenBytes(bytes, dtype, turned);
  transpose(turned, groups, rows, scale);
}
