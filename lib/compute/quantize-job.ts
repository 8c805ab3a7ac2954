import type { FloatBits, Step } from '../../binding.js';
import type { OwnedFloat64Array } from '../matrix/arrays.js';
import type { Prune, QuantConfig } from '../matrix/config.js';
import type { DType } from '../matrix/dtype.js';
import { requireForm } from '../matrix/fit.js';
import { allocateWords, packedRows } from '../matrix/format.js';
import { tameMeta } from '../matrix/metadata.js';
import { OPTION_NAMES } from '../matrix/options.js';
import { quantizedTensor } from '../matrix/quantized-tensor.js';
import { readWeight } from '../matrix/validate.js';
import type { ChosenOptions, QuantizedMeta, QuantizedTensor, QuantizeOptions, Weight } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { HqqError } from '../messages/errors.js';
import * as grouped from './arguments.js';
import { choosing, takeSample } from './auto.js';
import { allFinite } from './floats.js';
import { importanceArgs, readImportance } from './importance.js';
import { metaJob } from './metadata.js';
import { type Missed, pruneRows } from './prune.js';
import { checkRunOptions, RUN_OPTIONS, rejectMisplaced, resolveThreads } from './run.js';
import { sampleImportance, sampleOf } from './sample.js';
import { checkScales } from './scales.js';
import { objective, traceJob } from './trace.js';

const QUANTIZE_OPTIONS = [...RUN_OPTIONS, 'importance'] as const satisfies readonly (keyof QuantizeOptions)[];

/**
 * What `quantize` computes: yields what is to be run, one after the other, and returns the result.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_INVALID_ARGUMENT`, `ERR_GROUP_SIZE`, `ERR_OUT_OF_MEMORY`
 */
export function* quantizeJob(
  weight: Weight,
  given: QuantConfig = {},
  run: QuantizeOptions,
): Generator<Step, QuantizedTensor> {
  const { data: whole, dtype, shape } = readWeight(weight);
  rejectMisplaced(weight, OPTION_NAMES, (name) => `quantize(weight, { ${name} })`);
  rejectMisplaced(weight, QUANTIZE_OPTIONS, (name) => `quantize(weight, config, { ${name} })`);
  rejectMisplaced(given, QUANTIZE_OPTIONS, (name) => `quantize(weight, config, { ${name} })`);
  rejectMisplaced(run, OPTION_NAMES, (name) => `quantize(weight, { ${name} }, run)`);
  const form = requireForm(shape, given);
  const { format, geometry, adapted } = form;
  checkRunOptions(run, ['importance']);
  const { axis, nbits, groupSize, prune } = form.config;
  const { rows, cols, groups } = geometry;
  const importance = run.importance && readImportance(run.importance, shape[1]);
  const [data, missed] = pruned(whole, dtype, shape[1], prune, importance);
  const threads = resolveThreads(run.threads);
  let { config } = form;
  let chosen: ChosenOptions | undefined;
  if (config.auto) {
    const sample = sampleOf(geometry, axis);
    const trials = choosing(config, {
      ...{ sample, dtype, axis, threads },
      weights: allocating('some groups to try options on', () => takeSample(sample, data, dtype)),
      importance: importance && sampleImportance(sample, importance, geometry, axis),
    });
    let trial = trials.next();
    for (; !trial.done; trial = trials.next()) yield { operation: 'quantize', args: trial.value };
    config = trial.value;
    chosen = Object.freeze(Object.fromEntries(config.chosen!.map((name) => [name, config[name]])));
  }
  const what = `the codes of ${shape[0]} x ${shape[1]} weights`;
  const { packed, scale, zero, stats, starts } = allocating(what, () => ({
    packed: allocateWords(format, packedRows(format, rows) * cols),
    scale: new Float32Array(groups),
    zero: new Float32Array(groups),
    stats: new Float64Array(5),
    starts: new Int32Array(importance ? groups : 0),
  }));
  const args = grouped.groupedQuantizeArgs({
    ...{ weights: data, dtype, rows, cols, axis, config, format, metaDtype: 'float32', threads },
    ...{ packed, scale, zero, stats },
    importance: importance && importanceArgs(importance, geometry, axis, [{ at: 0, count: groups }], starts),
  });
  yield { operation: 'quantize', args };
  const { badIndex, iterations } = grouped.readStats(stats);
  if (badIndex >= 0) throw grouped.nonFiniteError('The weight matrix', data, dtype, badIndex, badIndex, shape[1]);
  checkScales('The weight matrix', scale, config.scaleDtype);
  let trace: OwnedFloat64Array | undefined;
  if (config.trace) {
    const job = allocating(what, () => traceJob(args, config, iterations));
    yield* job.steps;
    trace = Float64Array.from([...job.stats, stats], (one) => objective(one, config));
  }
  let meta: QuantizedMeta | undefined;
  if (config.metaBits === 8) {
    if (!config.referenceGuards && config.zeroPoint === 'float') {
      tameMeta(scale, zero, nbits, { weights: data, rows, cols, axis });
    }
    if (!allFinite(scale) || !allFinite(zero)) {
      const message = 'Expected every group to have a scale and a zero that float32 holds, for metaBits 8';
      throw new HqqError('ERR_INVALID_ARGUMENT', `${message}, but one of them is infinite.`);
    }
    const job = allocating(what, () => metaJob(scale, zero, config, threads));
    ({ meta } = job);
    yield* job.steps;
    yield { operation: 'encode', args };
  }
  return quantizedTensor({
    ...{ nbits, groupSize, axis, shape, packing: format.packing, packed, scale, zero },
    ...(meta === undefined ? {} : { meta: Object.freeze(meta) }),
    ...(trace === undefined ? {} : { trace }),
    stats: summarize({ ...grouped.readStats(stats), iterations }, shape[0] * shape[1], missed),
    ...(adapted === undefined ? {} : { adapted }),
    ...(chosen === undefined ? {} : { chosen }),
  });
}

/** Weights that are to be quantized, a copy where some are pruned; and what is missed by that. */
function pruned(
  data: FloatBits,
  dtype: DType,
  width: number,
  prune: Prune,
  importance: Float32Array | undefined,
): readonly [FloatBits, Missed] {
  if (prune === 0) return [data, [0, 0]];
  const copy = allocating('the weights that are pruned', () => data.slice());
  return [copy, pruneRows(copy, dtype, width, prune, importance)];
}

function summarize(sums: grouped.QuantSums, count: number, [absolute, squares]: Missed): QuantizedTensor['stats'] {
  const squaredError = sums.squaredError + squares;
  return Object.freeze({
    meanAbsError: (sums.absError + absolute) / count,
    meanSquaredError: squaredError / count,
    relativeError: grouped.relativeError(squaredError, sums.squaredWeight + squares),
    iterations: sums.iterations,
  });
}
