import type { FloatBits, TurnArgs } from '../../../binding.js';
import type { Units } from './slices.js';

/** Elements after which the event loop may have its turn. */
const TURN_ELEMENTS = 128 * 1024;

/** Rows that are turned together: what is written of a column is a line of the cache. */
const ROWS = 16;

/** The twin of native/core/turn.cc. */
export function* turn({ from, rows, stride, first, cols, to }: TurnArgs): Units {
  const [bits, turned] = [bitsOf(from), bitsOf(to)];
  const pause = Math.ceil(TURN_ELEMENTS / (cols * ROWS)) * ROWS;
  for (let top = 0; top < rows; top += ROWS) {
    const end = Math.min(rows, top + ROWS);
    for (let col = 0; col < cols; col++) {
      for (let row = top, at = top * stride + first + col; row < end; row++, at += stride)
        turned[col * rows + row] = bits[at]!;
    }
    if (end % pause === 0) yield;
  }
}

/** Floats would lose what NaN carries. */
const bitsOf = (array: FloatBits): Uint32Array | Uint16Array =>
  array instanceof Uint16Array ? array : new Uint32Array(array.buffer, array.byteOffset, array.length);
