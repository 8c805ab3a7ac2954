import type { Range, Ranges } from '../../containers/range.js';
import { HqqError } from '../../messages/errors.js';
import { CHUNK_WEIGHTS, MAX_CHUNK_WEIGHTS } from '../chunks.js';
import type { Chunk } from '../scheme.js';

/** Whole rows of a weight matrix. */
export interface RowChunk extends Chunk {
  /** The first of them. */
  readonly first: number;
  readonly rows: number;
}

/**
 * Cuts a matrix into chunks of whole rows, as many as are packed together or a multiple of that.
 *
 * @param most Weights of a chunk, unless rows that belong together have more.
 */
export function* rowChunks(
  [rows, cols]: readonly [number, number],
  together: number,
  most = CHUNK_WEIGHTS,
): Generator<RowChunk> {
  const height = together * Math.max(1, Math.floor(most / (together * cols)));
  for (let first = 0; first < rows; first += height) yield rowsFrom(first, Math.min(height, rows - first), cols);
}

/** A chunk of `count` rows of `cols` weights. */
export function rowsFrom(first: number, count: number, cols: number): RowChunk {
  return { first, rows: count, count: count * cols, weights: [{ at: first * cols, count: count * cols }] };
}

/** Elements of the rows of a chunk, in a matrix of so many columns. */
export const rowsOf = ({ first, rows }: RowChunk, cols: number): readonly Range[] => [
  { at: first * cols, count: rows * cols },
];

/**
 * Elements of columns `first .. first + count` of a matrix `[rows, cols]`, row after row: what holds the outputs of a chunk, where
 * a format lies `[in, out]`.
 */
export function columnsOf(rows: number, cols: number, first: number, count: number): Ranges {
  return count === cols ? [{ at: 0, count: rows * cols }] : { at: first, count, rows, step: cols };
}

/**
 * Refuses a matrix whose rows are too long to be worked on in bounded memory. `name` is shown as it is.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`
 */
export function checkRows(name: string, [, cols]: readonly [number, number], together: number): void {
  if (cols * together <= MAX_CHUNK_WEIGHTS) return;
  const message = `${name}: Expected rows of at most ${Math.floor(MAX_CHUNK_WEIGHTS / together)} weights`;
  const why = `${together} of them are held in memory together`;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${message}, since ${why}, got ${cols}. Leave it as it is (exclude, --exclude).`,
  );
}
