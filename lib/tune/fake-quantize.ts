import type { FakeQuantizeGradientArgs, Step } from '../../binding.js';
import { provide } from '../backend/js/backend.js';
import * as fake from '../backend/js/gradients/fake-quantize.js';
import { nonFiniteError } from '../compute/arguments.js';
import { allFinite } from '../compute/floats.js';
import { activeBackend } from '../compute/host.js';
import { quantize, quantizeSync } from '../compute/quantize.js';
import { checkRunOptions, pinInputs, resolveThreads, runTask, runTaskSync } from '../compute/run.js';
import type { OwnedFloat32Array, OwnedUint8Array } from '../matrix/arrays.js';
import { highestCode, type NBits, type QuantConfig } from '../matrix/config.js';
import { DTYPES } from '../matrix/dtype.js';
import { formOf } from '../matrix/fit.js';
import { geometryOf } from '../matrix/geometry.js';
import { checkArray, checkGrouped, checkObject, readWeight } from '../matrix/validate.js';
import type { QuantizedTensor, QuantizeOptions, RunOptions, Weight } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { HqqError } from '../messages/errors.js';
import { refuseSurplus } from '../messages/surplus.js';

provide(fake);

/** How `fakeQuantize` runs, and what it starts from. */
export interface FakeQuantizeOptions extends QuantizeOptions {
  /**
   * `[groups]`, finite: the scale of each group, of either sign. With `zero` beside it no solver runs.
   *
   * @default what the solver of the configuration finds
   */
  readonly scale?: Float32Array | undefined;
  /**
   * `[groups]`, finite: the zero of each group, whatever the configuration's `zeroPoint`.
   *
   * @default what the solver of the configuration finds
   */
  readonly zero?: Float32Array | undefined;
  /**
   * `[outFeatures * inFeatures]`, finite: what is added to each weight, in levels, before it is rounded; within 0.5 of 0 it decides
   * between two neighbours.
   *
   * @default 0
   */
  readonly offsets?: Float32Array | undefined;
}

/**
 * Weights as their codes stand for them, and what they were made from. Groups lie in the matrix as those of a `QuantizedTensor` do.
 */
export interface FakeQuantized {
  /** `[outFeatures, inFeatures]`, `(code - zero) * scale`: what a network computes with. */
  readonly data: OwnedFloat32Array;
  /** `[outFeatures, inFeatures]`, one code per byte. */
  readonly codes: OwnedUint8Array;
  /** `[groups]` */
  readonly scale: Float32Array;
  /** `[groups]` */
  readonly zero: Float32Array;
  /** `[outFeatures, inFeatures]`: the weights themselves, those that were given where they are float32. Gradients read them again. */
  readonly weights: Float32Array;
  /** Those that were given. */
  readonly offsets?: Float32Array;
  /** `[outFeatures, inFeatures]` */
  readonly shape: readonly [number, number];
  /** Bits per code. */
  readonly nbits: NBits;
  /** Weights per group. */
  readonly groupSize: number;
  /** 1: groups are parts of rows. 0: of columns, as `QuantConfig` says. */
  readonly axis: 0 | 1;
}

/** Gradients of a loss: how much it grows with each number. */
export interface FakeQuantizeGradients {
  /** `[outFeatures, inFeatures]`: that of `data` where the code is the nearest level, 0 where there is no such code. */
  readonly weights: OwnedFloat32Array;
  /** `[outFeatures, inFeatures]`: of the offsets, where there are such. */
  readonly offsets?: OwnedFloat32Array;
  /** `[groups]` */
  readonly scale: OwnedFloat32Array;
  /** `[groups]` */
  readonly zero: OwnedFloat32Array;
}

/**
 * What quantizing makes of weights, as floats, for networks that are trained with it: `(code - zero) * scale` with
 * `code = clamp(round(weight / scale + zero + offset), 0, highest)`. `fakeQuantizeGradients` carries gradients back through it. The
 * same bytes on every backend.
 *
 * Without `scale` and `zero` the solver of the configuration finds them; then they may be trained too, and be given back.
 *
 * @param weight As `quantize` takes it.
 * @param config As `quantize` takes it.
 * @example
 * const faked = await fakeQuantize({ data: weights, shape: [64, 32] }, { nbits: 2, groupSize: 32 });
 * // forward and backward with faked.data, which give `gradient`, of faked.data
 * const { weights: ofWeights } = await fakeQuantizeGradients(faked, gradient);
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_INVALID_ARGUMENT`, `ERR_GROUP_SIZE`, `ERR_NON_FINITE_WEIGHT`, `ERR_OUT_OF_MEMORY`;
 *   the signal's reason when it is aborted.
 */
export async function fakeQuantize(
  weight: Weight,
  config?: QuantConfig,
  run: FakeQuantizeOptions = {},
): Promise<FakeQuantized> {
  refuseSurplus(arguments.length, 3, 'fakeQuantize(weight, config, run)');
  const solved = isSolved(run) ? undefined : await quantize(weight, config, solverRun(run));
  return runJob(fakeJob(weight, config, run, solved), run);
}

/** `fakeQuantize` on the calling thread: it returns when the work is done. */
export function fakeQuantizeSync(weight: Weight, config?: QuantConfig, run: FakeQuantizeOptions = {}): FakeQuantized {
  refuseSurplus(arguments.length, 3, 'fakeQuantizeSync(weight, config, run)');
  const solved = isSolved(run) ? undefined : quantizeSync(weight, config, solverRun(run));
  return runJobSync(fakeJob(weight, config, run, solved), run);
}

/**
 * Carries a gradient back through `fakeQuantize`, straight through the rounding: with each level's rounding held fast, a code grows
 * with its weight, until it is clamped.
 *
 * | | of the weight | of the offset | of the scale | of the zero |
 * |---|---|---|---|---|
 * | the level is a code | 1 | scale | code - zero - weight / scale | 0 |
 * | it was clamped | 0 | 0 | code - zero | -scale |
 *
 * @param faked What `fakeQuantize` gave; its weights must be what they were.
 * @param gradient `[outFeatures, inFeatures]`, finite: of `faked.data`.
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_INVALID_ARGUMENT`, `ERR_GROUP_SIZE`, `ERR_OUT_OF_MEMORY`; the signal's reason when it
 *   is aborted.
 */
export async function fakeQuantizeGradients(
  faked: FakeQuantized,
  gradient: Float32Array,
  run: RunOptions = {},
): Promise<FakeQuantizeGradients> {
  refuseSurplus(arguments.length, 3, 'fakeQuantizeGradients(faked, gradient, run)');
  return runJob(gradientJob(faked, gradient, run), run);
}

/** `fakeQuantizeGradients` on the calling thread: it returns when the work is done. */
export function fakeQuantizeGradientsSync(
  faked: FakeQuantized,
  gradient: Float32Array,
  run: RunOptions = {},
): FakeQuantizeGradients {
  refuseSurplus(arguments.length, 3, 'fakeQuantizeGradientsSync(faked, gradient, run)');
  return runJobSync(gradientJob(faked, gradient, run), run);
}

type Job<T> = Generator<Step, T>;

async function runJob<T>(job: Job<T>, run: RunOptions): Promise<T> {
  let step = job.next();
  for (; !step.done; step = job.next()) {
    const { operation, args } = step.value;
    pinInputs(...Object.values(args as object).filter((value) => ArrayBuffer.isView(value) && value.byteLength > 0));
    await runTask(activeBackend(), operation, args, run);
  }
  return step.value;
}

function runJobSync<T>(job: Job<T>, run: RunOptions): T {
  let step = job.next();
  for (; !step.done; step = job.next()) runTaskSync(activeBackend(), step.value.operation, step.value.args, run);
  return step.value;
}

const NONE = new Float32Array(0);

/** Whether scale and zero are given. */
function isSolved(run: FakeQuantizeOptions): boolean {
  checkRunOptions(run, ['importance', 'scale', 'zero', 'offsets']);
  const { scale, zero, importance } = run;
  if ((scale === undefined) !== (zero === undefined)) {
    throw new HqqError('ERR_INVALID_OPTION', 'Expected scale and zero together, or neither: the solver finds both.');
  }
  if (scale !== undefined && importance !== undefined) {
    throw new HqqError('ERR_INVALID_OPTION', 'Expected no importance beside scale and zero: it is for the solver.');
  }
  return scale !== undefined;
}

const solverRun = ({ signal, threads, importance }: FakeQuantizeOptions): QuantizeOptions => ({
  signal,
  threads,
  importance,
});

/** Group size and axis of a matrix. What does not fit is refused as `quantize` refuses it. */
function groupingOf(weight: Weight, config: QuantConfig): Pick<FakeQuantized, 'nbits' | 'groupSize' | 'axis'> {
  const form = formOf(readWeight(weight).shape, config);
  return 'geometry' in form ? form.config : quantizeSync(weight, config);
}

/** `solved`: what the solver found, where scale and zero are not given. */
function* fakeJob(
  weight: Weight,
  config: QuantConfig = {},
  run: FakeQuantizeOptions,
  solved: QuantizedTensor | undefined,
): Job<FakeQuantized> {
  const { offsets } = run;
  const threads = resolveThreads(run.threads);
  const { data, dtype, shape } = readWeight(weight);
  const { nbits, groupSize, axis } = solved ?? groupingOf(weight, config);
  const { scale, zero } = solved ?? (run as Record<'scale' | 'zero', Float32Array>);
  const { rows, cols, groups } = geometryOf(shape, { groupSize, axis });
  const count = rows * cols;
  const what = `${shape[0]} x ${shape[1]} weights`;
  for (const [name, array] of Object.entries({ scale, zero })) checkFinite(array, name, groups, `for ${groups} groups`);
  if (offsets !== undefined) checkFinite(offsets, 'offsets', count, `for ${what}`);

  const weights = dtype === 'float32' ? (data as Float32Array) : allocating(what, () => new Float32Array(count));
  if (dtype !== 'float32') {
    const types = { fromDtype: DTYPES[dtype].id, toDtype: DTYPES.float32.id };
    yield { operation: 'convert', args: { from: data, to: weights, ...types, threads } };
  }
  if (solved === undefined && !allFinite(weights)) {
    const bad = weights.findIndex((value) => !Number.isFinite(value));
    throw nonFiniteError('The weight matrix', weights, 'float32', bad, bad, shape[1]);
  }
  const { out, codes } = allocating(what, () => ({ out: new Float32Array(count), codes: new Uint8Array(count) }));
  const args = { rows, cols, axis, maxCode: highestCode(nbits), weights, offsets: offsets ?? NONE, scale, zero };
  yield { operation: 'fakeQuantize', args: { ...args, out, codes, threads } };
  return Object.freeze({
    ...{ data: out, codes, scale, zero, weights, shape, nbits, groupSize, axis },
    ...(offsets === undefined ? {} : { offsets }),
  });
}

function* gradientJob(faked: FakeQuantized, gradient: Float32Array, run: RunOptions): Job<FakeQuantizeGradients> {
  checkObject(faked, 'faked');
  checkRunOptions(run);
  const { weights, offsets, scale, zero, shape, nbits, groupSize, axis } = faked;
  checkGrouped(faked);
  const { rows, cols, groups } = geometryOf(shape, { groupSize, axis });
  const count = rows * cols;
  const what = `${shape[0]} x ${shape[1]} weights`;
  checkArray(weights, 'weights of faked', 'Float32Array', count, `for ${what}`);
  if (offsets !== undefined) checkArray(offsets, 'offsets of faked', 'Float32Array', count, `for ${what}`);
  checkArray(scale, 'scale of faked', 'Float32Array', groups, `for ${groups} groups`);
  checkArray(zero, 'zero of faked', 'Float32Array', groups, `for ${groups} groups`);
  checkArray(gradient, 'gradient', 'Float32Array', count, `for ${what}`);
  const written = allocating(`gradients of ${what}`, () => ({
    weightGradient: new Float32Array(count),
    offsetGradient: new Float32Array(offsets === undefined ? 0 : count),
    scaleGradient: new Float32Array(groups),
    zeroGradient: new Float32Array(groups),
  }));
  const args: FakeQuantizeGradientArgs = {
    ...{ rows, cols, axis, maxCode: highestCode(nbits), weights, offsets: offsets ?? NONE, scale, zero, gradient },
    ...{ codes: new Uint8Array(0), ...written, threads: resolveThreads(run.threads) },
  };
  yield { operation: 'fakeQuantizeGradient', args };
  return Object.freeze({
    ...{ weights: written.weightGradient, scale: written.scaleGradient, zero: written.zeroGradient },
    ...(offsets === undefined ? {} : { offsets: written.offsetGradient }),
  });
}

function checkFinite(array: Float32Array, name: string, length: number, because: string): void {
  checkArray(array, name, 'Float32Array', length, because);
  if (allFinite(array)) return;
  const bad = array.findIndex((value) => !Number.isFinite(value));
  throw new HqqError('ERR_INVALID_ARGUMENT', `Expected ${name} to be finite, got ${array[bad]} at ${bad}.`);
}
