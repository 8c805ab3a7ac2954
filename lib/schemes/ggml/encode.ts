import type { FloatBits, Operations } from '../../../binding.js';
import { widen } from '../../backend/js/lanes.js';
import { type QuantSums, readStats } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import { numbersOf } from '../../containers/stored-types.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import type { BlockType } from '../../matrix/block-types.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import type { Encoded, PlannedLayer, WorkRun } from '../scheme.js';
import { type BlockForm, blocksOf, type RowChunk, typeNamed } from './form.js';
import { keepRows } from './kept.js';
import { rangeOf, searchOf } from './search.js';

/** Weights that are measured between turns, or a row. */
const AT_ONCE = 1 << 15;

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
  const { slot, grid, chosen } = run;
  if (form.kept && grid !== undefined)
    return keepRows({ site, form }, chunk, bitsOf(bytes, 'float32') as Float32Array, type, grid, run);
  const range = blocksOf(chunk, type);
  const blocks = slot.take('blocks', Uint8Array, range.count * type.bytes);
  const dtype = numbersOf(site.weight.type)!;
  const weights = { data: bitsOf(bytes, dtype), dtype, rows: chunk.rows.count, cols: chunk.cols };
  let sums: QuantSums;
  if (chosen === undefined) sums = await fitBlocks({ site, form }, weights, blocks, run);
  else {
    blocks.set(chosen.codes.subarray(range.at * type.bytes, (range.at + range.count) * type.bytes));
    sums = await sumsOfBlocks(weights, type, blocks, run);
  }
  return { pieces: [{ tensor: site.weight.name, ranges: [range], elementBytes: type.bytes, bytes: blocks }], sums };
}

/** Rows of a matrix. */
interface Rows {
  readonly data: FloatBits;
  readonly dtype: DType;
  readonly rows: number;
  readonly cols: number;
}

/** What blocks are fitted with. */
interface FitRun {
  readonly threads: number;
  readonly importance?: Float32Array | undefined;
  compute<K extends keyof Operations>(operation: K, args: Operations[K]): Promise<void>;
}

/** Fits the blocks of some rows. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for weights that are too large */
export async function fitBlocks(
  { site, form }: PlannedLayer<BlockForm>,
  { data, dtype, rows, cols }: Rows,
  blocks: Uint8Array,
  { threads, importance, compute }: FitRun,
): Promise<QuantSums> {
  const type = typeNamed(form.type);
  const stats = new Float64Array(5);
  const { starts, ...search } = form.config.solver === 'minmax' ? rangeOf(type) : searchOf(type);
  await compute('encodeBlocks', {
    ...{ type: type.id, rows, cols, weights: data, dtype: DTYPES[dtype].id },
    ...{ starts: Float32Array.from(starts.flat()), ...search },
    ...{ importance: importance ?? NONE, blocks, stats, threads },
  });
  const sums = readStats(stats);
  if (sums.badIndex < 0 && !Number.isFinite(sums.squaredError)) {
    const message = `Expected the weights of ${quote(site.weight.name)} to fit into ${type.name}, whose scales are float16, but they are too large`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Leave it as it is (exclude, --exclude).`);
  }
  return sums;
}

/** How far the numbers of blocks that were chosen are from the weights. */
async function sumsOfBlocks(
  { data, dtype, rows, cols }: Rows,
  type: BlockType,
  blocks: Uint8Array,
  { slot, threads, signal, compute }: WorkRun,
): Promise<QuantSums> {
  const out = slot.take('decoded', Float32Array, rows * cols);
  await compute('decodeBlocks', { type: type.id, blocks, out, threads });
  return inTurns(errorsOf({ data, dtype, cols }, out), signal);
}

function* errorsOf({ data, dtype, cols }: Omit<Rows, 'rows'>, out: Float32Array): Steps<QuantSums> {
  const sums = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0, badIndex: -1 };
  const row = new Float32Array(cols);
  for (let begin = 0; begin < out.length; begin += cols) {
    widen(data, DTYPES[dtype].id, begin, cols, row);
    for (let i = 0; i < cols; i++) {
      const error = Math.abs(row[i]! - out[begin + i]!);
      sums.absError += error;
      sums.squaredError += error * error;
      sums.squaredWeight += row[i]! ** 2;
    }
    if (begin % AT_ONCE < cols) yield;
  }
  return sums;
}
