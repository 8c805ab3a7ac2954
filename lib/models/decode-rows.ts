import { activeBackend } from '../backend/index.js';
import { bitsOf } from '../compute/floats.js';
import { resolveThreads, runTask } from '../compute/run.js';
import type { TensorSource } from '../containers/container.js';
import type { Range } from '../containers/ranges.js';
import { Scratch } from '../containers/scratch.js';
import { yieldIfDue } from '../files/event-loop.js';
import type { RunOptions } from '../matrix/weight.js';
import type { StoredLayer } from '../schemes/scheme.js';
import { schemeOf } from './layers.js';

/** Numbers of a chunk that go to the result: where they lie in each. */
interface Copy {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/**
 * Fills `out` with rows of a quantized matrix, in the order of `rows`, where one may stand any number of times. What holds them is
 * decoded chunk by chunk: the matrix is never in memory whole.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` where groups are too large for that.
 */
export async function decodeRows(
  source: TensorSource,
  layer: StoredLayer,
  rows: ArrayLike<number>,
  out: Float32Array,
  { signal = new AbortController().signal, threads }: RunOptions,
): Promise<void> {
  const scheme = schemeOf(layer);
  const order = Array.from({ length: rows.length }, (_, i) => i).sort((a, b) => rows[a]! - rows[b]!);
  const how = { slot: new Scratch(), threads: resolveThreads(threads), signal };
  for (const chunk of scheme.storedChunks(layer)) {
    const copies = [...copiesOf(chunk.weights, rows, order, layer.shape[1])];
    await yieldIfDue();
    signal.throwIfAborted();
    if (copies.length === 0) continue;
    const weights = await scheme.decode(source, layer, chunk, 'float32', {
      ...how,
      compute: (operation, args) => runTask(activeBackend(), operation, args, { signal }),
    });
    const values = bitsOf(weights, 'float32') as Float32Array;
    for (const { from, to, count } of copies) out.set(values.subarray(from, from + count), to);
  }
}

/** What of the ranges, which lie one after the other, belongs to rows. `order` sorts the rows. */
function* copiesOf(
  ranges: readonly Range[],
  rows: ArrayLike<number>,
  order: readonly number[],
  cols: number,
): Generator<Copy> {
  let offset = 0;
  for (const { at, count } of ranges) {
    for (let i = firstFrom(order, rows, Math.floor(at / cols)); i < order.length; i++) {
      const row = rows[order[i]!]! * cols;
      if (row >= at + count) break;
      const [begin, end] = [Math.max(row, at), Math.min(row + cols, at + count)];
      yield { from: offset + begin - at, to: order[i]! * cols + begin - row, count: end - begin };
    }
    offset += count;
  }
}

/** Place in `order` of the first row that is `least` or later. */
function firstFrom(order: readonly number[], rows: ArrayLike<number>, least: number): number {
  let [low, high] = [0, order.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[order[middle]!]! < least) low = middle + 1;
    else high = middle;
  }
  return low;
}
