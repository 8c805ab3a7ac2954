import { readStats } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import { numbersOf } from '../../containers/stored-types.js';
import { DTYPES } from '../../matrix/dtype.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import type { Encoded, PlannedLayer, WorkRun } from '../scheme.js';
import { type BlockForm, blocksOf, type RowChunk, typeNamed } from './form.js';
import { keepRows } from './kept.js';
import { rangeOf, searchOf } from './search.js';

/** All weights count alike. */
const NONE = new Float32Array(0);

/** Encodes some rows. */
export async function encodeRows(
  { site, form }: PlannedLayer<BlockForm>,
  chunk: RowChunk,
  bytes: Uint8Array,
  run: WorkRun,
): Promise<Encoded> {
  const type = typeNamed(form.type);
  const { slot, threads, importance, grid, compute } = run;
  if (form.kept && grid !== undefined)
    return keepRows({ site, form }, chunk, bitsOf(bytes, 'float32') as Float32Array, type, grid, run);
  const range = blocksOf(chunk, type);
  const blocks = slot.take('blocks', Uint8Array, range.count * type.bytes);
  const stats = new Float64Array(5);
  const dtype = numbersOf(site.weight.type)!;
  const { starts, ...search } = form.config.solver === 'minmax' ? rangeOf(type) : searchOf(type);
  await compute('encodeBlocks', {
    ...{
      type: type.id,
      rows: chunk.rows.count,
      cols: chunk.cols,
      weights: bitsOf(bytes, dtype),
      dtype: DTYPES[dtype].id,
    },
    ...{
      starts: Float32Array.from(starts.flat()),
      ...search,
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
