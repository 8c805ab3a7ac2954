import type { QuantSums } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import type { TensorSource } from '../../containers/container.js';
import type { Range } from '../../containers/ranges.js';
import { rounding } from '../../containers/rounding.js';
import type { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
import { readMatrix } from '../../containers/transpose.js';
import { DTYPES } from '../../matrix/dtype.js';
import { CHUNK_WEIGHTS } from '../../schemes/chunks.js';
import type { Chunk, PlannedLayer } from '../../schemes/scheme.js';
import { addSums } from './add-sums.js';
import { pruneRows } from './prune.js';

/** Weights of the rows that are pruned at once: they lie in memory beside the chunk. */
const ROWS_WEIGHTS = CHUNK_WEIGHTS / 4;

/** The weights of a chunk. */
export interface ReadWeights {
  /** The numbers that they are computed with. In the slot's memory. */
  readonly bytes: Uint8Array;
  /** What their pruning has cost already; absent where they are not pruned. */
  readonly pruned?: QuantSums;
}

/**
 * The weights of a chunk of a layer, pruned where that is asked for.
 *
 * @param fill Gives them where they are in memory already; absent: they are read.
 */
export async function readWeights(
  run: { readonly source: TensorSource; readonly importance: ReadonlyMap<string, Float32Array> | undefined },
  layer: Pick<PlannedLayer, 'site' | 'form'>,
  { weights, count }: Pick<Chunk, 'weights' | 'count'>,
  slot: Scratch,
  signal: AbortSignal,
  fill?: (ranges: readonly Range[], into: Uint8Array) => Promise<void>,
): Promise<ReadWeights> {
  const { site, form } = layer;
  const { weight, shape } = site;
  const dtype = numbersOf(weight.type)!;
  const { bytes: size } = DTYPES[dtype];
  const source = rounding(run.source);
  const bytes = slot.take('weights', Uint8Array, count * size);
  const read = (ranges: readonly Range[], into: Uint8Array) =>
    fill ? fill(ranges, into) : readMatrix(source, weight, site, ranges, size, into, slot, signal);
  if (form.config.prune === 0) {
    await read(weights, bytes);
    return { bytes };
  }
  // Which weights of a row go is known when all of it is there.
  const sums: QuantSums[] = [];
  const parts = partsOf(weights);
  let next = 0; // the first part that does not end before these rows
  for (const rows of rowsOf(parts, shape)) {
    const whole = slot.take('rows', Uint8Array, rows.count * size);
    await read([rows], whole);
    const end = rows.at + rows.count;
    while (next < parts.length && parts[next]!.end <= rows.at) next++;
    let part = next;
    const counts = (index: number) => {
      const at = rows.at + index;
      while (part < parts.length && parts[part]!.end <= at) part++;
      return part < parts.length && parts[part]!.at <= at;
    };
    const importance = run.importance?.get(site.name);
    const numbers = bitsOf(whole, dtype);
    const [absError, squares] = pruneRows(numbers, dtype, shape[1], form.config.prune, importance, counts);
    sums.push({ absError, squaredError: squares, squaredWeight: squares, iterations: 0, badIndex: -1 });
    for (let i = next; i < parts.length && parts[i]!.at < end; i++) {
      const { at, end: last, offset } = parts[i]!;
      const [from, to] = [Math.max(at, rows.at), Math.min(last, end)];
      bytes.set(whole.subarray((from - rows.at) * size, (to - rows.at) * size), (offset + from - at) * size);
    }
  }
  return { bytes, pruned: addSums(sums) };
}

/** Weights of a matrix that lie side by side, and where they are in a chunk. */
interface Part {
  readonly at: number;
  readonly end: number;
  readonly offset: number;
}

/** Ranges of a chunk, in the order of the matrix. */
function partsOf(ranges: readonly Range[]): readonly Part[] {
  let offset = 0;
  return ranges
    .map(({ at, count }) => ({ at, end: at + count, offset: (offset += count) - count }))
    .sort((a, b) => a.at - b.at);
}

/** All rows that parts are of, some whole ones at a time. */
function* rowsOf(parts: readonly Part[], [, width]: readonly [number, number]): Generator<Range> {
  const most = width * Math.max(1, Math.floor(ROWS_WEIGHTS / width));
  let done = 0;
  for (let i = 0; i < parts.length; i++) {
    const first = Math.max(done, Math.floor(parts[i]!.at / width) * width);
    let end = Math.ceil(parts[i]!.end / width) * width;
    for (; i + 1 < parts.length && parts[i + 1]!.at <= end; i++)
      end = Math.max(end, Math.ceil(parts[i + 1]!.end / width) * width);
    for (let at = first; at < end; at += most) yield { at, count: Math.min(most, end - at) };
    done = end;
  }
}
