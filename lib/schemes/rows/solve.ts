import { groupedQuantizeArgs, type QuantSums, readStats } from '../../compute/arguments.js';
import { bitsOf, bytesOf, narrowBytes, roundThrough } from '../../compute/floats.js';
import { importanceArgs } from '../../compute/importance.js';
import { checkScales } from '../../compute/scales.js';
import type { Grid } from '../../containers/grid.js';
import type { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
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
    return keptRows({ site, form }, chunk, bitsOf(bytes, 'float32') as Float32Array, grid, slot);
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
function keptRows(
  { site, form: { shape, config } }: PlannedLayer<RowForm>,
  { first, rows, count }: RowChunk,
  weights: Float32Array,
  grid: Grid,
  slot: Scratch,
): SolvedRows {
  const { groupSize, scaleDtype } = config;
  const groups = shape[1] / groupSize;
  const codes = slot.take('codes', Uint8Array, count);
  const own = (values: Float32Array) =>
    roundThrough(Float32Array.from(values.subarray(first * groups, (first + rows) * groups)), scaleDtype);
  const [scale, zero] = [own(grid.scale), own(grid.zero)];
  checkScales(quote(site.weight.name), scale, scaleDtype);
  const most = highestCode(config.nbits);
  const sums = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0, badIndex: -1 };
  for (let group = 0; group < scale.length; group++) {
    const step = grid.scale[first * groups + group]!;
    const from = grid.zero[first * groups + group]!;
    for (let i = group * groupSize; i < (group + 1) * groupSize; i++) {
      const weight = weights[i]!;
      const code = step === 0 ? 0 : Math.min(most, Math.max(0, Math.round(weight / step + from)));
      codes[i] = code;
      const error = Math.abs(weight - Math.fround(Math.fround(code - zero[group]!) * scale[group]!));
      sums.absError += error;
      sums.squaredError += error * error;
      sums.squaredWeight += weight * weight;
    }
  }
  return { codes, scale, zero, sums };
}

/** Scales as they are stored, in the slot's memory. */
export function storedScales({ config }: RowForm, scale: Float32Array, { slot }: WorkRun): Uint8Array {
  if (config.scaleDtype === 'float32') return bytesOf(scale);
  const bytes = slot.take('stored scale', Uint8Array, scale.length * DTYPES[config.scaleDtype].bytes);
  narrowBytes(scale, config.scaleDtype, bytes);
  return bytes;
}
