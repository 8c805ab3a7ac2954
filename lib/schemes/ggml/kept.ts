import type { QuantSums } from '../../compute/arguments.js';
import { narrowBytes, roundThrough } from '../../compute/floats.js';
import type { Grid } from '../../containers/grid.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import type { BlockType } from '../../matrix/block-types.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import type { Encoded, PlannedLayer, WorkRun } from '../scheme.js';
import { type BlockForm, blocksOf, KEPT_ADVICE, type RowChunk } from './form.js';

// Codes of HQQ as they are, in blocks that have as many bits: `(code - zero) * scale` is `code * scale + minimum`, whose two numbers
// each block has in float16.

/** Weights of the blocks that hold them. */
const BLOCK = 32;

/** Weights that are put in blocks between turns. */
const AT_ONCE = 1 << 15;

/** Some rows of a layer whose numbers are those of a grid, as blocks of its codes. */
export async function keepRows(
  { site }: PlannedLayer<BlockForm>,
  chunk: RowChunk,
  weights: Float32Array,
  type: BlockType,
  grid: Grid,
  { slot, signal }: WorkRun,
): Promise<Encoded> {
  const { rows, cols } = chunk;
  const { groupSize } = grid;
  const range = blocksOf(chunk, type);
  const groups = [(rows.at * cols) / groupSize, ((rows.at + rows.count) * cols) / groupSize] as const;
  const steps = grid.scale.subarray(...groups);
  const zeros = grid.zero.subarray(...groups);
  const scales = roundThrough(steps.slice(), 'float16');
  const minima = roundThrough(
    steps.map((scale, i) => -zeros[i]! * scale),
    'float16',
  );
  const unfit = scales.find(isUnfit) ?? minima.find(isUnfit);
  if (unfit !== undefined) {
    const message = `Expected scales and minima of ${quote(site.weight.name)} to fit into float16, as ${type.name} has them`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, but some are too large. ${KEPT_ADVICE}`);
  }
  const blocks = slot.take('blocks', Uint8Array, range.count * type.bytes).fill(0);
  const sums = await inTurns(keepBlocks(weights, type, { groupSize, steps, zeros, scales, minima }, blocks), signal);
  return { pieces: [{ tensor: site.weight.name, ranges: [range], elementBytes: type.bytes, bytes: blocks }], sums };
}

const isUnfit = (value: number): boolean => !Number.isFinite(value);

/** Numbers of groups: those that the weights are codes of, and what blocks have in their place. */
interface KeptGroups {
  readonly groupSize: number;
  readonly steps: Float32Array;
  readonly zeros: Float32Array;
  readonly scales: Float32Array;
  readonly minima: Float32Array;
}

function* keepBlocks(
  weights: Float32Array,
  type: BlockType,
  { groupSize, steps, zeros, scales, minima }: KeptGroups,
  blocks: Uint8Array,
): Steps<QuantSums> {
  const meta = [scales, minima].map((values) => halves(values));
  const sums = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0, badIndex: -1 };
  const codes = new Uint8Array(BLOCK);
  for (let at = 0, from = 0; at < blocks.length; at += type.bytes) {
    const group = Math.floor(from / groupSize);
    const [step, zero, scale, minimum] = [steps[group]!, zeros[group]!, scales[group]!, minima[group]!];
    for (let i = 0; i < BLOCK; i++) {
      const weight = weights[from + i]!;
      const code = step === 0 ? 0 : Math.min(type.high, Math.max(0, Math.round(weight / step + zero)));
      codes[i] = code;
      const error = Math.abs(weight - Math.fround(Math.fround(code * scale) + minimum));
      sums.absError += error;
      sums.squaredError += error * error;
      sums.squaredWeight += weight * weight;
    }
    for (const [place, values] of [
      [type.d, meta[0]!],
      [type.m, meta[1]!],
    ] as const)
      blocks.set(values.subarray(2 * group, 2 * group + 2), at + place);
    place(codes, type, blocks, at);
    from += BLOCK;
    if (from % AT_ONCE === 0) yield;
  }
  return sums;
}

function halves(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array(2 * values.length);
  narrowBytes(values, 'float16', bytes);
  return bytes;
}

/** Puts the codes of a block where `BlockBits` says that they lie. */
function place(codes: Uint8Array, { codes: pieces }: BlockType, blocks: Uint8Array, block: number): void {
  for (const { offset, bits, run, at } of pieces) {
    const period = (run * 8) / bits;
    const mask = 2 ** bits - 1;
    for (let i = 0; i < BLOCK; i++) {
      const byte = block + offset + run * Math.floor(i / period) + (i % run);
      blocks[byte]! |= ((codes[i]! >> at) & mask) << (bits * Math.floor((i % period) / run));
    }
  }
}
