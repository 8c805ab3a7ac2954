import { checkInput, conversionHint, type OwnedFloat32Array } from '../matrix/arrays.js';
import { checkArray, checkObject, isArray } from '../matrix/validate.js';
import type { RunOptions } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { takeLora } from './lora/take.js';
import { checkRunOptions, RUN_OPTIONS, resolveThreads } from './run.js';

/** How a `QuantizedLinear` computes. */
export interface LinearOptions {
  /** Added to every row of the result: `outFeatures` numbers, which are copied. */
  readonly bias?: Float32Array | undefined;
  /**
   * What x is multiplied as.
   *
   * - `'float32'`: as it is. The result differs from exact arithmetic by at most 3e-6 of the sum of `|terms|`.
   * - `'int8'`: every 32 numbers of each row are first rounded to 255 levels of their own, then multiplied with integers:
   *   about twice as fast, and 0.3 to 0.5 % off (root mean square, relative to the result) on most layers of trained models,
   *   under 1 % on all. The result has the same bits on every machine.
   *
   * @default 'float32'
   */
  readonly activations?: 'float32' | 'int8' | undefined;
}

/** What an adapter adds to the result: `scale * B (A x)`. A, and B times the scale, are finite. */
export interface LoraFactors {
  /** A: `[rank, inFeatures]`. Its length says what the rank is. */
  readonly a: Float32Array;
  /** B: `[outFeatures, rank]` */
  readonly b: Float32Array;
  /** Such as `alpha / rank`. @default 1 */
  readonly scale?: number | undefined;
}

/** Adapters beside the weights of a layer that is made on other threads. */
export interface LoraOptions {
  /**
   * By name: `forward(x, { lora: 'sql' })` has one, `{ lora: ['sql', 'french'] }` several, which add up, `forward(x)` none. Arrays are copied
   * at the call.
   * Their products are float32 whatever `activations` is.
   *
   * @default none
   */
  readonly lora?: Readonly<Record<string, LoraFactors>> | undefined;
}

/** How one multiplication runs. */
export interface ForwardOptions extends RunOptions {
  /** Where the result goes, `[batch, outFeatures]`; it is also what the call returns. It may not overlap x. @default a new array */
  readonly out?: Float32Array | undefined;
  /** Adapters that the layer was made with and the result has, by name: one, or several. @default none */
  readonly lora?: string | readonly string[] | undefined;
}

/** A multiplication whose result is a new array. */
export type ForwardNew = ForwardOptions & { readonly out?: undefined };
/** A multiplication into an array of the caller's. */
export type ForwardInto<T extends Float32Array> = ForwardOptions & { readonly out: T };

function refuse(message: string): never {
  throw new HqqError('ERR_INVALID_ARGUMENT', message);
}

/** Names of `LinearOptions`. */
export const LINEAR_OPTIONS = ['bias', 'activations'] as const satisfies readonly (keyof LinearOptions)[];

const ACTIVATIONS = ['float32', 'int8'] as const;

/** What a layer's options say, taken once and checked. */
export function checkLinearOptions(options: LinearOptions, outFeatures: number) {
  const { bias, activations } = takeLinearOptions(options);
  if (bias !== undefined) checkArray(bias, 'bias', 'Float32Array', outFeatures, `for ${outFeatures} outputs`);
  return { bias, activations };
}

/** The same, save that `bias` waits for the layer's shape. */
function takeLinearOptions(options: LinearOptions, more: readonly string[] = []) {
  checkObject(options, 'the options of a layer');
  rejectUnknownOptions(options, [...LINEAR_OPTIONS, ...more]);
  const { bias, activations = 'float32' } = options;
  if (!ACTIVATIONS.includes(activations)) {
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected activations to be one of ${ACTIVATIONS.join(', ')}, got ${show(activations)}.`,
    );
  }
  return { bias, activations };
}

/**
 * The options of a call that makes a layer on other threads: how the layer computes, and how the call runs. Taken once and checked,
 * save that `bias` waits for the layer's shape.
 */
export function checkLayerOptions(options: LinearOptions & LoraOptions & RunOptions, more: readonly string[] = []) {
  const own = takeLinearOptions(options, [...RUN_OPTIONS, ...more]);
  const { signal, threads, lora } = options;
  checkRunOptions({ signal, threads });
  return { own, lora, run: { signal, threads: resolveThreads(threads) } };
}

/**
 * Checks what `checkLayerOptions` took against the shape of the layer, and copies it: callers may do with theirs what they like from then
 * on. Without a shape nothing is checked: the weight is refused for that.
 */
export function holdLayerOptions(own: LinearOptions, lora: LoraOptions['lora'], shape: readonly number[]) {
  if (!Array.isArray(shape)) return { layer: own, adapters: undefined };
  const [outFeatures, inFeatures] = shape as unknown as readonly [number, number];
  const { bias, activations } = checkLinearOptions(own, outFeatures);
  const adapters = lora === undefined ? lora : takeLora(lora, [outFeatures, inFeatures]);
  return { layer: { bias: bias?.slice(), activations }, adapters };
}

/** How a layer computes that a model gives, with the bias that the model gives: taken once and checked before anything is read. */
export function checkStoredLinearOptions(options: LinearOptions): Pick<LinearOptions, 'activations'> {
  const { bias, activations } = takeLinearOptions(options);
  refuseBias(bias);
  return { activations };
}

/** `checkLayerOptions` for such a layer. */
export function checkStoredLayerOptions(options: LinearOptions & RunOptions) {
  const { own, run } = checkLayerOptions(options);
  refuseBias(own.bias);
  return { activations: own.activations, run };
}

function refuseBias(bias: unknown): void {
  if (bias === undefined) return;
  const message = `Expected no bias, which is the model's own here, got ${show(bias)}.`;
  const advice = 'For another one: QuantizedLinear.create(await model.loadQuantized(name), { bias }).';
  throw new HqqError('ERR_INVALID_OPTION', `${message} ${advice}`);
}

interface Features {
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** Checks x, and checks or allocates what a layer makes of it. */
export function resultOf(layer: Features, x: Float32Array, out: undefined): OwnedFloat32Array;
export function resultOf(layer: Features, x: Float32Array, out: Float32Array | undefined): Float32Array;
export function resultOf(layer: Features, x: Float32Array, out: Float32Array | undefined): Float32Array {
  const { inFeatures, outFeatures } = layer;
  if (!isArray(x, 'Float32Array')) refuse(`Expected x to be a Float32Array, got ${show(x)}.${conversionHint(x, 'x')}`);
  checkInput(x, 'x');
  const batch = x.length / inFeatures;
  if (!Number.isInteger(batch) || batch === 0) {
    refuse(`Expected x to have rows of ${inFeatures} elements (inFeatures), got ${x.length}.`);
  }
  if (out === undefined) {
    return allocating(`${batch} x ${outFeatures} results`, () => new Float32Array(batch * outFeatures));
  }
  checkArray(out, 'out', 'Float32Array', batch * outFeatures, `for ${batch} x ${outFeatures} results`);
  if (
    x.buffer === out.buffer &&
    x.byteOffset < out.byteOffset + out.byteLength &&
    out.byteOffset < x.byteOffset + x.byteLength
  ) {
    refuse('Expected out to be memory of its own, got some of x.');
  }
  return out;
}

/** @throws {HqqError} `ERR_INVALID_OPTION`: a call wants adapters of a layer that has none */
export function refuseLora(lora: unknown): never {
  throw new HqqError('ERR_INVALID_OPTION', `Expected no lora, which the layer is made without, got ${show(lora)}.`);
}

/** Layers that can multiply one input. */
export function checkLayers(
  layers: readonly (Features & Pick<LinearOptions, 'activations'>)[],
  kind: abstract new (...args: never) => unknown,
): void {
  if (!Array.isArray(layers) || !layers.every((layer) => layer instanceof kind)) {
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected layers to be a list of QuantizedLinear, got ${show(layers)}.`);
  }
  const [first] = layers;
  const other = layers.find(
    (layer) => layer.inFeatures !== first!.inFeatures || layer.activations !== first!.activations,
  );
  if (!other) return;
  throw new HqqError(
    'ERR_INVALID_ARGUMENT',
    `Expected layers to have the inFeatures and activations of the first, ${first!.inFeatures} and ${first!.activations}, ` +
      `got ${other.inFeatures} and ${other.activations}.`,
  );
}
