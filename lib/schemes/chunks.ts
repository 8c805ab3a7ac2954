import type { Range } from '../containers/ranges.js';
import { blockOf } from '../matrix/block.js';
import { LANES } from '../matrix/constants.js';
import { type PackFormat, packedRows } from '../matrix/format.js';
import type { Geometry } from '../matrix/geometry.js';
import { HqqError } from '../messages/errors.js';
import type { Chunk } from './scheme.js';

// The cuts of a grouped matrix (lib/matrix/geometry.ts), which `quantize` and `dequantize` of the backend work on.

/**
 * A part of a grouped matrix that is one too: `[rows, cols]`, packed into `[step, cols]`. Each list of ranges says where its
 * elements, one range after the other, belong in the whole.
 */
export interface GroupedChunk extends Chunk {
  readonly rows: number;
  readonly cols: number;
  readonly step: number;
  /** Words of packed codes. */
  readonly packed: readonly Range[];
  /** Groups: elements of what has one for each, as scales and zeros do. */
  readonly groups: readonly Range[];
}

/** Weights of a chunk: 4 MiB in float32, of which a few are in memory at once. */
export const CHUNK_WEIGHTS = 1024 * 1024;

/** Columns below which reading a row of a chunk costs more in calls than in bytes (axis 0). */
const NARROW = 32 * 1024;

/** How much larger than others a chunk may be, rather than be made of narrow columns (axis 0). */
const NARROW_FACTOR = 4;

/** Most weights of a chunk that cannot be smaller, 256 MiB in float32: it holds whole groups, as many as make words. */
export const MAX_CHUNK_WEIGHTS = 64 * 1024 * 1024;

interface Cut {
  readonly geometry: Geometry;
  readonly axis: 0 | 1;
  readonly format: PackFormat;
}

/**
 * Refuses a matrix whose groups are too large to be worked on in bounded memory. `name` is shown as it is.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`
 */
export function checkChunks(name: string, { geometry, axis, format }: Cut): void {
  const { rows, cols, size } = geometry;
  const together = axis === 1 ? Math.min(rows, format.fields) : Math.min(cols, LANES * blockOf(rows));
  if (size * together <= MAX_CHUNK_WEIGHTS) return;
  const message = `${name}: Expected groups of at most ${Math.floor(MAX_CHUNK_WEIGHTS / together)} weights`;
  const why = `${together} of them are held in memory together`;
  const advice = 'Choose a smaller groupSize (--group-size), or leave it as it is (exclude, --exclude)';
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, since ${why}, got groups of ${size}. ${advice}.`);
}

/**
 * Cuts a matrix into chunks that can be worked on in any order. Packed rows (axis 1) or columns (axis 0) of a chunk lie side
 * by side; since field `f` of packed row `r` holds grouped row `f * step + r`, its weights on axis 1 are one range a field.
 */
export function chunksOf(cut: Cut, most = CHUNK_WEIGHTS): Iterable<GroupedChunk> {
  return cut.axis === 1 ? packedRowChunks(cut, most) : columnChunks(cut, most);
}

function* packedRowChunks({ geometry: { rows, cols }, format }: Cut, most: number): Generator<GroupedChunk> {
  const block = blockOf(cols);
  const step = packedRows(format, rows);
  const height = block * Math.max(1, Math.floor(most / (format.fields * cols * block)));
  for (let first = 0; first < step; first += height) {
    const count = Math.min(height, step - first);
    const groups: Range[] = [];
    for (let at = first; at < rows; at += step) {
      // At most one field ends early, and later ones are empty: the rows that there are lie as in a chunk of their own.
      const range = { at, count: Math.min(count, rows - at) };
      const last = groups.at(-1);
      if (last && last.at + last.count === at)
        groups[groups.length - 1] = { at: last.at, count: last.count + range.count };
      else groups.push(range);
    }
    const own = groups.reduce((sum, range) => sum + range.count, 0);
    yield {
      ...{ rows: own, cols, step: count, count: own * cols },
      weights: groups.map((range) => ({ at: range.at * cols, count: range.count * cols })),
      packed: [{ at: first * cols, count: count * cols }],
      groups,
    };
  }
}

function* columnChunks({ geometry: { rows, cols }, format }: Cut, most: number): Generator<GroupedChunk> {
  const unit = LANES * blockOf(rows);
  const step = packedRows(format, rows);
  const fitting = (weights: number) => unit * Math.max(1, Math.floor(weights / (rows * unit)));
  let width = fitting(most);
  if (width < Math.min(NARROW, cols))
    width = rows * cols <= most * NARROW_FACTOR ? cols : fitting(most * NARROW_FACTOR);
  for (let first = 0; first < cols; first += width) {
    const count = Math.min(width, cols - first);
    const ranges = (height: number): Range[] =>
      count === cols
        ? [{ at: 0, count: height * cols }]
        : Array.from({ length: height }, (_, row) => ({ at: row * cols + first, count }));
    yield {
      ...{ rows, cols: count, step, count: rows * count },
      ...{ weights: ranges(rows), packed: ranges(step), groups: [{ at: first, count }] },
    };
  }
}
