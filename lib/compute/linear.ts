import type { LayerArgs, LinearArgs, LinearTiledArgs, PanelArgs, Step } from '../../binding.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import type { QuantConfig } from '../matrix/config.js';
import { OPTION_NAMES } from '../matrix/options.js';
import { checkQuantized } from '../matrix/validate.js';
import type { QuantizedTensorLike, RunOptions, Weight } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { INSPECT, notCloneable } from '../messages/objects.js';
import { refuseSurplus } from '../messages/surplus.js';
import { formatBytes } from '../messages/units.js';
import { activeBackend } from './host.js';
import {
  checkLayerOptions,
  checkLayers,
  checkLinearOptions,
  type ForwardInto,
  type ForwardNew,
  type ForwardOptions,
  holdLayerOptions,
  LINEAR_OPTIONS,
  type LinearOptions,
  type LoraOptions,
  refuseLora,
  resultOf,
} from './linear-options.js';
import type { LoraSet } from './lora/set.js';
import { LaidOut, type Weights } from './panels.js';
import { quantize } from './quantize.js';
import {
  checkRunOptions,
  pinInputs,
  RUN_OPTIONS,
  rejectMisplaced,
  resolveThreads,
  runSteps,
  runTaskSync,
} from './run.js';
import { dequantizeArgs, tiledArgs } from './tensor-arguments.js';

const NONE: ForwardOptions = Object.freeze({});
const NO_BIAS = new Float32Array(0);
const LORA = ['lora'];
const FORWARD = ['out', ...LORA];
const STAYS = 'A QuantizedLinear, which stays in its thread: post the QuantizedTensor, and make a layer of it there,';
const NOT_CLONEABLE = notCloneable(STAYS);

/**
 * A linear layer on quantized weights: `y = x . W^T + bias`, multiplied straight from the codes; the weights are never
 * expanded.
 *
 * Where groups are parts of rows (axis 1, and `groupSize` divides `inFeatures`), the codes are laid out anew when the layer
 * is made, in about the time of reading them, and `q` is not kept. Other tensors are multiplied as they are, several times
 * slower: see `path`.
 *
 * @example
 * const layer = await QuantizedLinear.fromWeight({ data, dtype: 'bfloat16', shape: [4096, 4096] }, { nbits: 4 });
 * const y = await layer.forward(x); // x: Float32Array [batch * 4096]
 */
export class QuantizedLinear {
  /** Numbers per row of x. */
  readonly inFeatures: number;
  /** Numbers per row of the result. */
  readonly outFeatures: number;
  /** What is added to every row; a copy of what was given. */
  readonly bias: OwnedFloat32Array | undefined;
  /** What x is multiplied as. */
  readonly activations: 'float32' | 'int8';
  /** `'fused'`: codes are multiplied as they are read. `'tiled'`: tiles of weights are dequantized first, and x is not rounded. */
  readonly path: 'fused' | 'tiled';
  /** What computes: instruction set, activations, layout, group size, as in `avx2/int8/4bit_u8/g64`. */
  readonly kernel: string;
  /** Bytes that the layer holds. */
  readonly memoryUsage: number;

  /** @internal */
  readonly notCloneable = NOT_CLONEABLE;
  readonly #weights: Weights;
  readonly #layer: { -readonly [K in keyof LayerArgs]: LayerArgs[K] } | undefined;
  readonly #args: { -readonly [K in keyof LinearArgs]: LinearArgs[K] } | undefined;
  readonly #lora: LoraSet | undefined;
  readonly #threads = resolveThreads();

  /**
   * Lays the codes out for multiplication, on the calling thread (`create` does it on others).
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_INVALID_OPTION`, `ERR_GROUP_SIZE`, `ERR_OUT_OF_MEMORY`
   */
  constructor(q: QuantizedTensorLike, options?: LinearOptions);
  /** @internal `create` has laid it out. */
  constructor(laidOut: LaidOut, options: LinearOptions);
  constructor(given: QuantizedTensorLike | LaidOut, options: LinearOptions = {}) {
    refuseSurplus(arguments.length, 2, 'new QuantizedLinear(q, options)');
    const q = given instanceof LaidOut ? given.q : given;
    checkQuantized(q);
    [this.outFeatures, this.inFeatures] = q.shape;
    const { bias, activations } = checkLinearOptions(options, this.outFeatures);
    const { weights, lora } = given instanceof LaidOut ? given : LaidOut.now(q, this.#threads);
    this.#weights = weights;
    this.#lora = lora;
    this.bias = bias?.slice();
    this.activations = activations;
    const more = (bias?.byteLength ?? 0) + (lora?.bytes ?? 0);
    const { isa, dot } = activeBackend();
    if ('panels' in weights) {
      const { panels } = weights;
      this.path = 'fused';
      const extended = activations === 'int8' && ['vnni', 'sdot', 'i8mm'].includes(dot) ? `${isa}-${dot}` : isa;
      this.kernel = `${extended}/${activations}/${q.packing}/g${q.groupSize}`;
      this.memoryUsage = panels.codes.byteLength + panels.meta.byteLength + more;
      this.#layer = { ...panels, bias: this.bias ?? NO_BIAS, out: NO_BIAS };
      this.#args = { layers: [this.#layer], x: NO_BIAS, int8: activations === 'int8', threads: 1 };
    } else {
      this.path = 'tiled';
      this.kernel = `${isa}/float32/${q.packing}/g${q.groupSize}`;
      this.memoryUsage = q.packed.byteLength + q.scale.byteLength + q.zero.byteLength + more;
      pinInputs(q.packed, q.scale, q.zero);
    }
    Object.freeze(this);
  }

  /**
   * Makes a layer as the constructor does, and lays the codes out on other threads. The arrays of `q` may not be written to until
   * the promise settles, and can never be transferred afterwards.
   *
   * @example const layer = await QuantizedLinear.create(q, { activations: 'int8', signal });
   * @throws {HqqError} as the constructor does; the signal's reason when it is aborted.
   */
  static async create(
    q: QuantizedTensorLike,
    options: LinearOptions & LoraOptions & RunOptions = {},
  ): Promise<QuantizedLinear> {
    refuseSurplus(arguments.length, 2, 'QuantizedLinear.create(q, options)');
    const { own, lora, run } = checkLayerOptions(options, LORA);
    run.signal?.throwIfAborted();
    checkQuantized(q);
    const { layer, adapters } = holdLayerOptions(own, lora, q.shape);
    return new QuantizedLinear(await LaidOut.later(q, run, adapters), layer);
  }

  /**
   * Quantizes a weight matrix and makes a layer of it, on other threads.
   *
   * @throws {HqqError} as `quantize` and the constructor do.
   */
  static async fromWeight(
    weight: Weight,
    config?: QuantConfig,
    options: LinearOptions & LoraOptions & RunOptions = {},
  ): Promise<QuantizedLinear> {
    refuseSurplus(arguments.length, 3, 'QuantizedLinear.fromWeight(weight, config, options)');
    const place = (argument: string) => `QuantizedLinear.fromWeight(weight, ${argument})`;
    rejectMisplaced(weight, OPTION_NAMES, (name) => place(`{ ${name} }`));
    for (const given of [weight, config])
      rejectMisplaced(given, [...LINEAR_OPTIONS, ...RUN_OPTIONS], (name) => place(`config, { ${name} }`));
    rejectMisplaced(options, OPTION_NAMES, (name) => place(`{ ${name} }, options`));
    const { own, lora, run } = checkLayerOptions(options, LORA);
    const { layer, adapters } = holdLayerOptions(own, lora, weight?.shape); // before any work is done
    const q = await quantize(weight, config, run);
    return new QuantizedLinear(await LaidOut.later(q, run, adapters), layer);
  }

  /**
   * Multiplies on other threads: `x` is `[batch, inFeatures]`, row-major, and so is the result, `[batch, outFeatures]`.
   *
   * Neither x nor `out` may be written to until the promise settles. Row i of the result has the same bits whatever the
   * other rows are, and however many threads there are.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_INVALID_OPTION`, `ERR_OUT_OF_MEMORY`; the signal's reason when it is
   *   aborted (then `out` holds anything).
   */
  forward(x: Float32Array, run?: ForwardNew): Promise<OwnedFloat32Array>;
  forward<T extends Float32Array>(x: Float32Array, run: ForwardInto<T>): Promise<T>;
  forward(x: Float32Array, run: ForwardOptions): Promise<Float32Array>;
  async forward(x: Float32Array, run: ForwardOptions = NONE): Promise<Float32Array> {
    refuseSurplus(arguments.length, 2, 'forward(x, run)');
    const { out, steps } = this.#stepsOf(x, run);
    pinInputs(x, out);
    await runSteps(steps, run);
    return out;
  }

  /** `forward` on the calling thread (and its helpers): it returns when the work is done. */
  forwardSync(x: Float32Array, run?: ForwardNew): OwnedFloat32Array;
  forwardSync<T extends Float32Array>(x: Float32Array, run: ForwardInto<T>): T;
  forwardSync(x: Float32Array, run: ForwardOptions): Float32Array;
  forwardSync(x: Float32Array, run: ForwardOptions = NONE): Float32Array {
    refuseSurplus(arguments.length, 2, 'forwardSync(x, run)');
    const { out, steps } = this.#stepsOf(x, run);
    for (const { operation, args } of steps) runTaskSync(activeBackend(), operation, args, run);
    return out;
  }

  /**
   * Several layers of one input (query, key and value; gate and up): x is arranged for the kernels once, and the work is shared out once.
   * The results are those of `forward` without adapters, in the order of `layers`.
   *
   * @throws {HqqError} as `forward` does, and unless all layers have the same `inFeatures` and `activations`.
   */
  static async forwardMany(
    layers: readonly QuantizedLinear[],
    x: Float32Array,
    run: RunOptions = NONE,
  ): Promise<OwnedFloat32Array[]> {
    refuseSurplus(arguments.length, 3, 'QuantizedLinear.forwardMany(layers, x, run)');
    if (run !== NONE) checkRunOptions(run);
    checkLayers(layers, QuantizedLinear);
    const outs = layers.map((layer) => resultOf(layer, x, undefined));
    if (layers.length === 0) return outs;
    const threads = layers[0]!.#threadsOf(run);
    pinInputs(x);
    await runSteps(QuantizedLinear.steps(layers, x, outs, threads), run);
    return outs;
  }

  /**
   * `forwardMany` as steps of a sequence, for those who plan several layers at once: nothing is checked, and `outs` are written.
   *
   * @internal
   */
  static steps(
    layers: readonly QuantizedLinear[],
    x: Float32Array,
    outs: readonly Float32Array[],
    threads: number,
  ): Step[] {
    const fused: LayerArgs[] = [];
    const steps: Step[] = [];
    layers.forEach((layer, i) => {
      if (layer.#layer) fused.push({ ...layer.#layer, out: outs[i]! });
      else steps.push({ operation: 'linearTiled', args: layer.#tiledArgs(x, outs[i]!, threads) });
    });
    const int8 = layers[0]!.activations === 'int8';
    if (fused.length > 0) steps.push({ operation: 'linear', args: { layers: fused, x, int8, threads } });
    return steps;
  }

  /** The weights that the codes stand for, `[outFeatures, inFeatures]`, as `dequantize` gives them. */
  async dequantize(run: RunOptions = NONE): Promise<OwnedFloat32Array> {
    refuseSurplus(arguments.length, 1, 'dequantize(run)');
    if (run !== NONE) checkRunOptions(run);
    const { outFeatures, inFeatures } = this;
    const out = allocating(`${outFeatures} x ${inFeatures} weights`, () => new Float32Array(outFeatures * inFeatures));
    const threads = this.#threadsOf(run);
    const { panels } = this;
    const step: Step = panels
      ? { operation: 'expand', args: { ...panels, out, threads } }
      : {
          operation: 'dequantize',
          args: dequantizeArgs(this.#tiled, { dtype: 'float32', rounding: 'once', out, threads }),
        };
    await runSteps([step], run);
    return out;
  }

  /** What a layer whose `path` is `'fused'` is made of. By a cast, as below: an import may read no more (test/import.test.ts). @internal */
  get panels(): PanelArgs | undefined {
    return (this.#weights as { panels?: PanelArgs }).panels;
  }

  /** @internal */
  [INSPECT](): string {
    const { inFeatures, outFeatures, kernel, path } = this;
    const parts = [...(this.bias ? ['bias'] : []), kernel, path, formatBytes(this.memoryUsage)];
    return `QuantizedLinear { ${inFeatures} -> ${outFeatures}, ${parts.join(', ')} }`;
  }

  /** What a call of `forward` does, to be run at once. */
  #stepsOf(x: Float32Array, run: ForwardOptions): { readonly out: Float32Array; readonly steps: readonly Step[] } {
    if (run !== NONE) checkRunOptions(run, FORWARD);
    const out = resultOf(this, x, run.out);
    const threads = this.#threadsOf(run);
    const { lora } = run;
    const base: Step = this.#args
      ? { operation: 'linear', args: this.#fill(x, out, threads) }
      : { operation: 'linearTiled', args: this.#tiledArgs(x, out, threads) };
    if (lora === undefined) return { out, steps: [base] };
    return { out, steps: [base, ...(this.#lora?.steps(lora, x, out, threads) ?? refuseLora(lora))] };
  }

  get #tiled(): QuantizedTensorLike {
    return (this.#weights as { q: QuantizedTensorLike }).q;
  }

  #threadsOf(run: RunOptions): number {
    return run.threads ?? this.#threads;
  }

  /** The call's own arguments, in objects that are made once: backends read them before they return. */
  #fill(x: Float32Array, out: Float32Array, threads: number): LinearArgs {
    const args = this.#args!;
    this.#layer!.out = out;
    args.x = x;
    args.threads = threads;
    return args;
  }

  #tiledArgs(x: Float32Array, out: Float32Array, threads: number): LinearTiledArgs {
    return tiledArgs(this.#tiled, { bias: this.bias ?? NO_BIAS, x, out, threads });
  }
}
