import { groupedQuantizeArgs, type QuantSums, readStats } from '../../compute/arguments.js';
import { bitsOf, bytesOf, narrowBytes, roundThrough } from '../../compute/floats.js';
import { importanceArgs } from '../../compute/importance.js';
import { checkScales } from '../../compute/scales.js';
import type { Grid } from '../../containers/grid.js';
import { numbersOf } from '../../containers/stored-types.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import { highestCode } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import { FORMATS } from '../../matrix/format.js';
import { geometryOf } from '../../matrix/geometry.js';
import { quote } from '../../messages/text.js';
import { sumsOfChosen, takeChosen } from '../chosen.js';
import type { PlannedLayer, WorkRun } from '../scheme.js';
import { type RowChunk, rowsOf } from './chunks.js';
import { groupsOfRow, type RowForm } from './form.js';

/** A byte each: every format packs them in its own way. */
const BYTES = FORMATS[0]!;

/** Weights that get their codes between turns, or a group. */
const AT_ONCE = 1 << 15;

/** Rows of a layer, quantized. In the slot's memory. */
export interface SolvedRows {
  /** `[rows, inFeatures]` */
  readonly codes: Uint8Array;
  /** `[rows, groups of a row]`, of the type that scales are stored in. */
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  readonly sums: QuantSums;
}

/** Quantizes rows of a layer. With a weight that is not finite, `sums` says so and the rest is meaningless. */
export async function solveRows(
  { site, form }: PlannedLayer<RowForm>,
  chunk: RowChunk,
  bytes: Uint8Array,
  run: WorkRun,
): Promise<SolvedRows> {
  const { slot, threads, importance, grid, compute } = run;
  const { config } = form;
  if (grid?.nbits === config.nbits && grid.groupSize === config.groupSize && config.zeroPoint === 'float') {
    return keptRows({ site, form }, chunk, bitsOf(bytes, 'float32') as Float32Array, grid, run);
  }
  const dtype = numbersOf(site.weight.type)!;
  const groups = chunk.rows * groupsOfRow(form);
  const codes = slot.take('codes', Uint8Array, chunk.count);
  const scale = slot.take('scale', Float32Array, groups);
  const zero = slot.take('zero', Float32Array, groups);
  if (run.chosen) {
    const part = { codes, scale, zero };
    takeChosen(run.chosen, chunk.weights, rowsOf(chunk, groupsOfRow(form)), part);
    return { ...part, sums: await sumsOfChosen(bitsOf(bytes, dtype), dtype, part, config.groupSize, 0, run.signal) };
  }
  const starts = importance && slot.take('starts', Int32Array, groups);
  const geometry = geometryOf(form.shape, { groupSize: config.groupSize, axis: 1 });
  const stats = new Float64Array(5);
  const args = groupedQuantizeArgs({
    ...{ rows: groups, cols: config.groupSize, format: BYTES, config, weights: bitsOf(bytes, dtype), dtype },
    // Scales are numbers of their type already, zeros are codes: nothing more is rounded.
    ...{ metaDtype: 'float32', packed: codes, scale, zero, stats, axis: 1, threads },
    importance: starts && importanceArgs(importance!, geometry, 1, rowsOf(chunk, groupsOfRow(form)), starts),
  });
  await compute('quantize', args);
  const sums = readStats(stats);
  if (sums.badIndex < 0) checkScales(quote(site.weight.name), scale, config.scaleDtype);
  return { codes, scale, zero, sums };
}

/** Rows of a layer that is quantized so already: the codes that its numbers are of. */
async function keptRows(
  { site, form }: PlannedLayer<RowForm>,
  chunk: RowChunk,
  weights: Float32Array,
  grid: Grid,
  { slot, signal }: WorkRun,
): Promise<SolvedRows> {
  const { nbits, groupSize, scaleDtype } = form.config;
  const groups = groupsOfRow(form);
  const range = [chunk.first * groups, (chunk.first + chunk.rows) * groups] as const;
  const [steps, from] = [grid.scale.subarray(...range), grid.zero.subarray(...range)];
  const codes = slot.take('codes', Uint8Array, chunk.count);
  await inTurns(keptCodes(weights, codes, steps, from, groupSize, highestCode(nbits)), signal);
  const [scale, zero] = [roundThrough(steps.slice(), scaleDtype), roundThrough(from.slice(), scaleDtype)];
  checkScales(quote(site.weight.name), scale, scaleDtype);
  return {
    codes,
    scale,
    zero,
    sums: await sumsOfChosen(weights, 'float32', { codes, scale, zero }, groupSize, 0, signal),
  };
}

function* keptCodes(
  weights: Float32Array,
  codes: Uint8Array,
  steps: Float32Array,
  from: Float32Array,
  groupSize: number,
  most: number,
): Steps<void> {
  for (let group = 0, i = 0; group < steps.length; group++) {
    const step = steps[group]!;
    const zero = from[group]!;
    for (const end = i + groupSize; i < end; i++) {
      codes[i] = step === 0 ? 0 : Math.min(most, Math.max(0, Math.round(weights[i]! / step + zero)));
    }
    if (i % AT_ONCE < groupSize) yield;
  }
}

/** Scales as they are stored, in the slot's memory. */
export function storedScales({ config }: RowForm, scale: Float32Array, { slot }: WorkRun): Uint8Array {
  if (config.scaleDtype === 'float32') return bytesOf(scale);
  const bytes = slot.take('stored scale', Uint8Array, scale.length * DTYPES[config.scaleDtype].bytes);
  narrowBytes(scale, config.scaleDtype, bytes);
  return bytes;
}
