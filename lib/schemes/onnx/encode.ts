import type { FloatBits } from '../../../binding.js';
import { widen } from '../../backend/js/lanes.js';
import { groupedQuantizeArgs, type QuantSums, readStats } from '../../compute/arguments.js';
import { bitsOf, bytesOf, narrowBytes } from '../../compute/floats.js';
import { blocksOf, partNames, sumsScale, zeroBytes } from '../../containers/onnx/forms.js';
import { pieces as cut } from '../../containers/ranges.js';
import { numbersOf } from '../../containers/stored-types.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { FORMATS } from '../../matrix/format.js';
import { resolveQuantConfig } from '../../matrix/options.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import { type RowChunk, rowsFrom, rowsOf } from '../rows/chunks.js';
import { columnPiece } from '../rows/columns.js';
import { type SolvedRows, solveRows } from '../rows/solve.js';
import { transpose, zeroCodes } from '../rows/streams.js';
import type { Encoded, Piece, PlannedLayer, WorkRun } from '../scheme.js';
import { type NodesForm, rowBytes } from './form.js';

type Layer = PlannedLayer<NodesForm>;

/** Some rows of a weight as the operator has them. */
export async function encodeNodes(layer: Layer, chunk: RowChunk, weights: Uint8Array, run: WorkRun): Promise<Encoded> {
  const { site, form } = layer;
  const { bits, block, zeros, correction, dtype } = form.node;
  const solved = await solveBlocks(layer, chunk, weights, run);
  const { codes, scale, zero, sums } = solved;
  if (sums.badIndex >= 0) return { pieces: [], sums };
  const { slot } = run;
  const { rows } = chunk;
  const blocks = blocksOf(form.shape[1], block);
  const names = partNames(site.weight.name, bits);
  const width = rowBytes(form);
  const packed = packCodes(codes, rows, blocks * block, bits, width, slot.take('packed', Uint8Array, rows * width));
  const piece = (tensor: string, cols: number, bytes: Uint8Array, elementBytes = 1): Piece => ({
    ...{ tensor, ranges: rowsOf(chunk, cols), elementBytes, bytes },
  });
  const floats = (name: string, values: Float32Array) => storedFloats(values, dtype, name, run);
  const size = DTYPES[dtype].bytes;
  const pieces = [piece(names.codes, width, packed), piece(names.scales, blocks, floats('stored scale', scale), size)];
  if (zeros) {
    const each = zeroBytes(blocks, bits);
    const own = zeroCodes(zero, 2 ** bits - 1, slot.take('zero codes', Uint8Array, zero.length));
    const bytes = packCodes(own, rows, blocks, bits, each, slot.take('packed zeros', Uint8Array, rows * each));
    pieces.push(piece(names.zeros, each, bytes));
  }
  if (correction === undefined) return { pieces, sums };
  const rest = slot.take('correction', Float32Array, rows * blocks);
  const middle = 2 ** (bits - 1);
  const times = 1 / sumsScale(form.node);
  for (let i = 0; i < rest.length; i++) {
    rest[i] = times * scale[i]! * (middle - zero[i]!);
    if (dtype === 'float16' && Math.abs(rest[i]!) > MAX_HALF) throw tooLarge(site.weight.name, block);
  }
  if (correction.kind === 'float') {
    const turned = transpose(rest, rows, blocks, slot.take('turned correction', Float32Array, rest.length));
    const bytes = floats('stored correction', turned);
    pieces.push(columnPiece(names.correction, chunk, [blocks, form.shape[0]], 1, bytes, size));
    return { pieces, sums };
  }
  const parts = blocksOf(blocks, correction.block);
  const small = await solveCorrection(rest, rows, blocks, correction.block, dtype, run);
  pieces.push(
    piece(names.correctionCodes, parts * correction.block, small.codes),
    piece(names.correctionScales, parts, floats('stored correction scale', small.scale), size),
    piece(
      names.correctionZeros,
      parts,
      zeroCodes(small.zero, 255, slot.take('correction zeros', Uint8Array, rows * parts)),
    ),
  );
  return { pieces, sums };
}

/** Largest number of float16. */
const MAX_HALF = 65504;

function tooLarge(name: string, block: number): HqqError {
  const message = `Expected weights of ${quote(name)} below some ${MAX_HALF / block}, got larger ones, whose float zeros in groups of ${block} float16 cannot hold`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Use zeroPoint: 'integer' (--zero-point integer).`);
}

/** Quantizes rows, whose last block may be a part of one: what it lacks is its last weight again, whose errors count nothing. */
async function solveBlocks(layer: Layer, chunk: RowChunk, weights: Uint8Array, run: WorkRun): Promise<SolvedRows> {
  const { site, form } = layer;
  const [outs, ins] = form.shape;
  const wide = blocksOf(ins, form.node.block) * form.node.block;
  if (wide === ins) return solveRows(layer, chunk, weights, run);
  const dtype = numbersOf(site.weight.type)!;
  const { slot } = run;
  const from = bitsOf(weights, dtype);
  const bytes = slot.take('wide weights', Uint8Array, chunk.rows * wide * DTYPES[dtype].bytes);
  const to = bitsOf(bytes, dtype);
  for (let row = 0; row < chunk.rows; row++) {
    (to as Float32Array).set((from as Float32Array).subarray(row * ins, (row + 1) * ins), row * wide);
    to.fill(from[(row + 1) * ins - 1]!, row * wide + ins, (row + 1) * wide);
  }
  const importance = new Float32Array(wide);
  if (run.importance) importance.set(run.importance);
  else importance.fill(1, 0, ins);
  const padded = { site, form: { ...form, shape: [outs, wide] as const } };
  const solved = await solveRows(padded, rowsFrom(chunk.first, chunk.rows, wide), bytes, { ...run, importance });
  const steps = sumsWithin(solved, to, dtype, [chunk.rows, ins, wide], form.node.block);
  return { ...solved, sums: await inTurns(steps, run.signal) };
}

/** Weights that are measured between turns. */
const AT_ONCE = 1 << 15;

/** What the weights of rows came to, without those that only fill them up. */
function* sumsWithin(
  { codes, scale, zero, sums }: SolvedRows,
  weights: FloatBits,
  dtype: DType,
  [rows, ins, wide]: readonly [number, number, number],
  block: number,
): Steps<QuantSums> {
  if (sums.badIndex >= 0) {
    const row = Math.floor(sums.badIndex / wide);
    return { ...sums, badIndex: row * ins + Math.min(ins - 1, sums.badIndex - row * wide) };
  }
  const values = new Float32Array(Math.min(ins, AT_ONCE));
  const own = { absError: 0, squaredError: 0, squaredWeight: 0 };
  let measured = 0;
  for (let row = 0; row < rows; row++) {
    for (const { at, count } of cut(ins, AT_ONCE)) {
      const first = row * wide + at;
      widen(weights, DTYPES[dtype].id, first, count, values);
      for (let i = 0; i < count; i++) {
        const group = Math.floor((first + i) / block);
        const error = Math.abs(values[i]! - Math.fround(Math.fround(codes[first + i]! - zero[group]!) * scale[group]!));
        own.absError += error;
        own.squaredError += error * error;
        own.squaredWeight += values[i]! * values[i]!;
      }
      measured += count;
      if (measured < AT_ONCE) continue;
      measured = 0;
      yield;
    }
  }
  return { ...sums, ...own };
}

/** What float zeros leave, in 8 bits, with zeros that are codes. */
async function solveCorrection(
  values: Float32Array,
  rows: number,
  blocks: number,
  block: number,
  scaleDtype: DType,
  { slot, threads, compute }: WorkRun,
): Promise<Omit<SolvedRows, 'sums'>> {
  const wide = blocksOf(blocks, block) * block;
  const weights = slot.take('wide correction', Float32Array, rows * wide);
  for (let row = 0; row < rows; row++) {
    weights.set(values.subarray(row * blocks, (row + 1) * blocks), row * wide);
    weights.fill(values[(row + 1) * blocks - 1]!, row * wide + blocks, (row + 1) * wide);
  }
  const groups = (rows * wide) / block;
  const codes = slot.take('correction codes', Uint8Array, rows * wide);
  const scale = slot.take('correction scale', Float32Array, groups);
  const zero = slot.take('correction zero', Float32Array, groups);
  const stats = new Float64Array(5);
  const config = resolveQuantConfig({ nbits: 8, groupSize: block, solver: 'joint', zeroPoint: 'integer', scaleDtype });
  await compute(
    'quantize',
    groupedQuantizeArgs({
      ...{ rows: groups, cols: block, format: FORMATS[0]!, config, weights, dtype: 'float32' },
      ...{ metaDtype: 'float32', packed: codes, scale, zero, stats, axis: 1, threads },
    }),
  );
  readStats(stats);
  return { codes, scale, zero };
}

/** Codes in bytes, low bits first, row after row; what of a row `width` has no place for is left out. */
function packCodes(
  codes: Uint8Array,
  rows: number,
  cols: number,
  bits: number,
  width: number,
  packed: Uint8Array,
): Uint8Array {
  const each = 8 / bits;
  if (each === 1 && cols === width) {
    packed.set(codes.subarray(0, rows * cols));
    return packed;
  }
  if (each < 8 && cols === each * width && packed.length % 4 === 0) {
    packFours(new Uint32Array(codes.buffer, codes.byteOffset, (rows * cols) / 4), bits, packed);
    return packed;
  }
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) {
      let byte = 0;
      for (let k = 0, at = i * each; k < each && at < cols; k++, at++) byte |= codes[row * cols + at]! << (k * bits);
      packed[row * width + i] = byte;
    }
  }
  return packed;
}

/** The common case: rows that fill their bytes, four codes at a time. */
function packFours(fours: Uint32Array, bits: number, packed: Uint8Array): void {
  if (bits === 2) {
    for (let i = 0; i < fours.length; i++) {
      const four = fours[i]!;
      packed[i] = four | (four >>> 6) | (four >>> 12) | (four >>> 18);
    }
    return;
  }
  const halves = new Uint16Array(packed.buffer, packed.byteOffset, fours.length);
  for (let i = 0; i < fours.length; i++) {
    const pairs = fours[i]! | (fours[i]! >>> 4);
    halves[i] = (pairs & 0xff) | ((pairs >>> 8) & 0xff00);
  }
}

function storedFloats(values: Float32Array, dtype: DType, name: string, { slot }: WorkRun): Uint8Array {
  if (dtype === 'float32') return bytesOf(values);
  const bytes = slot.take(name, Uint8Array, values.length * DTYPES[dtype].bytes);
  narrowBytes(values, dtype, bytes);
  return bytes;
}
