import type { QuantizeArgs } from '../../../binding.js';
import { groupedQuantizeArgs, packArgs, type QuantSums, readStats } from '../../compute/arguments.js';
import { allFinite, bitsOf, bytesOf } from '../../compute/floats.js';
import { importanceArgs } from '../../compute/importance.js';
import { checkScales } from '../../compute/scales.js';
import { countOf } from '../../containers/range.js';
import type { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
import { DTYPES } from '../../matrix/dtype.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import { type ChosenPart, sumsOfChosen, takeChosen } from '../chosen.js';
import type { GroupedChunk } from '../chunks.js';
import type { Encoded, Piece, WorkRun } from '../scheme.js';
import { toHalf } from './half.js';
import { formatOf, type HqqLayer } from './state-dict.js';

/** A chunk's codes, scales and zeros. In the slot's memory. */
interface Solved {
  readonly packed: Uint8Array | Int32Array;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  readonly sums: QuantSums;
}

/** What `quantize` of a chunk is asked for. In the slot's memory. */
export function chunkArgs({ site, form }: HqqLayer, chunk: GroupedChunk, bytes: Uint8Array, run: WorkRun) {
  const { config, geometry, metaDtype } = form;
  const format = formatOf(form);
  const { rows, cols, step } = chunk;
  const { slot, threads, importance } = run;
  const dtype = numbersOf(site.weight.type)!;
  const words = step * cols;
  const packed =
    format.wordBytes === 1 ? slot.take('packed', Uint8Array, words) : slot.take('packed', Int32Array, words);
  const groups = countOf(chunk.groups);
  const scale = slot.take('scale', Float32Array, groups);
  const zero = slot.take('zero', Float32Array, groups);
  const stats = new Float64Array(5);
  const starts = importance && slot.take('starts', Int32Array, groups);
  const args = groupedQuantizeArgs({
    rows,
    cols,
    step,
    format,
    config,
    weights: bitsOf(bytes, dtype),
    dtype,
    metaDtype,
    packed,
    scale,
    zero,
    stats,
    axis: config.axis,
    threads,
    importance: starts && importanceArgs(importance!, geometry, config.axis, chunk.groups, starts),
  });
  return { args, packed, scale, zero };
}

/** Quantizes a chunk. */
export async function solveChunk(
  layer: HqqLayer,
  chunk: GroupedChunk,
  bytes: Uint8Array,
  run: WorkRun,
): Promise<Solved> {
  const { args, packed, scale, zero } = chunkArgs(layer, chunk, bytes, run);
  if (run.chosen) {
    const part = await packChosen(layer, chunk, args, run);
    return { packed, scale, zero, sums: await sumsOf(layer, chunk, bytes, part, run.signal) };
  }
  await run.compute('quantize', args);
  return { packed, scale, zero, sums: readStats(args.stats) };
}

/** Packs the codes that were chosen for a chunk, and puts its scales and zeros where those of `args` go. */
export async function packChosen(
  { form }: HqqLayer,
  chunk: GroupedChunk,
  { packed, scale, zero }: Pick<QuantizeArgs, 'packed' | 'scale' | 'zero'>,
  { slot, threads, chosen, compute }: WorkRun,
): Promise<ChosenPart> {
  const part = { codes: slot.take('codes', Uint8Array, chunk.count), scale, zero };
  takeChosen(chosen!, chunk.weights, chunk.groups, part);
  const { rows, cols, step } = chunk;
  await compute('pack', packArgs({ rows, cols, step, format: formatOf(form), codes: part.codes, packed, threads }));
  return part;
}

/** How far what was chosen for a chunk is from its weights. */
export async function sumsOf(
  { site, form }: HqqLayer,
  { cols }: GroupedChunk,
  bytes: Uint8Array,
  part: ChosenPart,
  signal: AbortSignal,
): Promise<QuantSums> {
  const { axis, groupSize } = form.config;
  const dtype = numbersOf(site.weight.type)!;
  return sumsOfChosen(bitsOf(bytes, dtype), dtype, part, groupSize, axis === 0 ? cols : 0, signal);
}

/** A chunk's codes, to be written. */
export function codePiece({ site, form }: HqqLayer, chunk: GroupedChunk, packed: Uint8Array | Int32Array): Piece {
  const { wordBytes } = formatOf(form);
  return { tensor: `${site.name}.W_q`, ranges: chunk.packed, elementBytes: wordBytes, bytes: bytesOf(packed) };
}

/** Quantizes a chunk, to be written. */
export async function encodeChunk(
  layer: HqqLayer,
  chunk: GroupedChunk,
  bytes: Uint8Array,
  run: WorkRun,
): Promise<Encoded> {
  const { site, form } = layer;
  const { packed, scale, zero, sums } = await solveChunk(layer, chunk, bytes, run);
  if (sums.badIndex >= 0) return { pieces: [], sums };
  checkScales(quote(site.weight.name), scale, form.config.scaleDtype);
  const meta = (kind: 'scale' | 'zero', values: Float32Array): Piece => ({
    tensor: `${site.name}.${kind}`,
    ranges: chunk.groups,
    elementBytes: DTYPES[form.metaDtype].bytes,
    bytes: storedMeta(layer, kind, values, run.slot),
  });
  const codes = codePiece(layer, chunk, packed);
  return { pieces: [codes, meta('scale', scale), meta('zero', zero)], sums };
}

/** Scales, zeros or a bias as they are stored. */
export function storedMeta(
  { site, form }: HqqLayer,
  kind: 'scale' | 'zero' | 'bias',
  values: Float32Array,
  slot: Scratch,
): Uint8Array {
  if (form.metaDtype === 'float32') {
    if (kind !== 'bias') demandFinite(site.weight.name, kind, values);
    return bytesOf(values);
  }
  const half = slot.take(`half ${kind}`, Uint16Array, values.length);
  if (toHalf(values, kind, half) === 'overflows') {
    const bad = values.find((value) => !Number.isFinite(value));
    const fault = bad === undefined ? 'overflows' : `is ${bad}`;
    const message = `Expected ${quote(`${site.name}.${kind}`)} to fit into float16, but a value of it ${fault}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Use metaDtype (--meta-dtype) auto or float32.`);
  }
  return bytesOf(half);
}

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what nothing can be computed from. */
export function demandFinite(weight: string, kind: 'scale' | 'zero', values: Float32Array): void {
  if (allFinite(values)) return;
  const message = `Expected the groups of ${quote(weight)} to span less than float32 can hold`;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, but a ${kind} would be infinite. Exclude it.`);
}
