import { readStats } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import { numbersOf } from '../../containers/stored-types.js';
import type { BlockType } from '../../matrix/block-types.js';
import { DTYPES } from '../../matrix/dtype.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import type { Encoded, PlannedLayer, WorkRun } from '../scheme.js';
import { type BlockForm, blocksOf, type RowChunk, typeNamed } from './form.js';

/** Where least squares begin, how far they go from each, and rounds of whole scales. */
interface Search {
  readonly starts: readonly number[];
  readonly iterations: number;
  readonly rounds: number;
}

/** The range as it is. */
const ROUND_TO_NEAREST: Search = { starts: [1], iterations: 1, rounds: 0 };

/** Of both signs: which end of the range gets the code that the other has not. */
const BOTH_SIGNS = [1, 0.97, 0.94, 0.91, 0.88, 0.85, -1.14, -1.08, -1.02, -0.96, -0.9];

/** Shares of the range, steps and rounds that found the least errors on normal weights in the time that they take. */
export function searchOf({ minima, nbits, curved }: BlockType): Search {
  if (curved) return { starts: [1, 0.93, 0.86, -1.1, -0.97], iterations: 3, rounds: 2 };
  if (!minima) return { starts: BOTH_SIGNS, iterations: 2, rounds: 2 };
  if (nbits === 5) return { starts: [1.12, 1.06, 1, 0.94, 0.88, 0.8], iterations: 6, rounds: 4 };
  return { starts: [1.1, 1, 0.92, 0.84, 0.76], iterations: 6, rounds: 4 };
}

/** All weights count alike. */
const NONE = new Float32Array(0);

/** Encodes some rows. */
export async function encodeRows(
  { site, form }: PlannedLayer<BlockForm>,
  chunk: RowChunk,
  bytes: Uint8Array,
  { slot, threads, importance, compute }: WorkRun,
): Promise<Encoded> {
  const type = typeNamed(form.type);
  const range = blocksOf(chunk, type);
  const blocks = slot.take('blocks', Uint8Array, range.count * type.bytes);
  const stats = new Float64Array(5);
  const dtype = numbersOf(site.weight.type)!;
  const { starts, iterations, rounds } = form.config.solver === 'minmax' ? ROUND_TO_NEAREST : searchOf(type);
  await compute('encodeBlocks', {
    ...{
      type: type.id,
      rows: chunk.rows.count,
      cols: chunk.cols,
      weights: bitsOf(bytes, dtype),
      dtype: DTYPES[dtype].id,
    },
    ...{
      starts: Float32Array.from(starts),
      iterations,
      rounds,
      importance: importance ?? NONE,
      blocks,
      stats,
      threads,
    },
  });
  const sums = readStats(stats);
  if (sums.badIndex < 0 && !Number.isFinite(sums.squaredError)) {
    const message = `Expected the weights of ${quote(site.weight.name)} to fit into ${type.name}, whose scales are float16, but they are too large`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Leave it as it is (exclude, --exclude).`);
  }
  return { pieces: [{ tensor: site.weight.name, ranges: [range], elementBytes: type.bytes, bytes: blocks }], sums };
}
