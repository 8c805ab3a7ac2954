import type { Steps } from '../../files/event-loop.js';

/**
 * Puts `part`, `[rows, width]`, into the columns of `to`, `[rows, columns]`, from `from` on. A step is a row. No views of rows: a model
 * would leave hundreds of megabytes of them.
 */
export function* placeColumns(
  part: Float32Array,
  width: number,
  to: Float32Array,
  columns: number,
  from: number,
): Steps<void> {
  for (let at = 0, begin = from; at < part.length; at += width, begin += columns) {
    for (let i = 0; i < width; i++) to[begin + i] = part[at + i]!;
    yield;
  }
}
