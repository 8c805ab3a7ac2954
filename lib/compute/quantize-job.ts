import type { Step } from '../../binding.js';
import type { OwnedFloat64Array } from '../matrix/arrays.js';
import type { QuantConfig } from '../matrix/config.js';
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
  const { data, dtype, shape } = readWeight(weight);
  rejectMisplaced(weight, OPTION_NAMES, (name) => `quantize(weight, { ${name} })`);
  rejectMisplaced(weight, QUANTIZE_OPTIONS, (name) => `quantize(weight, config, { ${name} })`);
  rejectMisplaced(given, QUANTIZE_OPTIONS, (name) => `quantize(weight, config, { ${name} })`);
  rejectMisplaced(run, OPTION_NAMES, (name) => `quantize(weight, { ${name} }, run)`);
  const form = requireForm(shape, given);
  const { format, geometry, adapted } = form;
  checkRunOptions(run, ['importance']);
  const { axis, nbits, groupSize, prune } = form.config;
  if (prune !== 0) throw new HqqError('ERR_INVALID_OPTION', `Expected no prune but of quantizeModel, got ${prune}.`);
  const { rows, cols, groups } = geometry;
  const importance = run.importance && readImportance(run.importance, shape[1]);
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
    yield* job.widening;
    yield { operation: 'encode', args };
  }
  return quantizedTensor({
    ...{ nbits, groupSize, axis, shape, packing: format.packing, packed, scale, zero },
    ...(meta === undefined ? {} : { meta: Object.freeze(meta) }),
    ...(trace === undefined ? {} : { trace }),
    stats: summarize({ ...grouped.readStats(stats), iterations }, shape[0] * shape[1]),
    ...(adapted === undefined ? {} : { adapted }),
    ...(chosen === undefined ? {} : { chosen }),
  });
}

function summarize(sums: grouped.QuantSums, count: number): QuantizedTensor['stats'] {
  return Object.freeze({
    meanAbsError: sums.absError / count,
    meanSquaredError: sums.squaredError / count,
    relativeError: grouped.relativeError(sums.squaredError, sums.squaredWeight),
    iterations: sums.iterations,
  });
}
