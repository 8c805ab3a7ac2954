import { activeBackend } from '../backend/index.js';
import { groupedDequantizeArgs } from '../compute/arguments.js';
import { bytesOf, roundThrough, widenBytes } from '../compute/floats.js';
import { QuantizedLinear } from '../compute/linear.js';
import type { LinearOptions } from '../compute/linear-options.js';
import { largeFloats } from '../compute/memory.js';
import { checkRunOptions, resolveThreads, runTask, runTaskSync } from '../compute/run.js';
import type { TensorEntry, TensorSource } from '../containers/container.js';
import { openSource } from '../containers/list.js';
import { layerOf } from '../containers/names.js';
import { storedFloat } from '../containers/stored-types.js';
import { type FilePath, pathOf } from '../files/path.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { rejectUnknownOptions } from '../matrix/config.js';
import { allocate, DTYPE_NAMES, DTYPES, type DType } from '../matrix/dtype.js';
import { formatNamed } from '../matrix/format.js';
import { geometryOf } from '../matrix/geometry.js';
import { quantizedTensor } from '../matrix/quantized-tensor.js';
import { checkDtype, MAX_WEIGHTS } from '../matrix/validate.js';
import type { QuantizedTensor, RunOptions } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { HqqError, show } from '../messages/errors.js';
import { Closing, INSPECT, notCloneable } from '../messages/objects.js';
import { suggestion } from '../messages/suggestion.js';
import { refuseSurplus } from '../messages/surplus.js';
import { plain, quote } from '../messages/text.js';
import { formatCount, plural } from '../messages/units.js';
import type { LayerLoad, StoredLayer } from '../schemes/scheme.js';
import { findLayers, schemeOf, weightName } from './layers.js';
import type { TensorInfo } from './report.js';

/** How numbers of a tensor are computed. */
export interface TensorOptions {
  /**
   * `'once'` computes in float32 and rounds the result to `dtype`. `'each'` rounds after every operation: with the layer's own
   * compute dtype, the bits that Python's `HQQLinear.dequantize()` gives.
   *
   * @default 'once'
   */
  readonly rounding?: 'once' | 'each' | undefined;
  /**
   * Type that the numbers are rounded to. They come as float32 all the same, which holds each of them exactly.
   *
   * @default 'float32'; with rounding 'each' that in which Python computes the layer
   */
  readonly dtype?: DType | undefined;
}

/** `tensor` without blocking, and with what every call takes. */
export type LoadOptions = TensorOptions & RunOptions;

/** What a layer that was read cannot tell: the original is not there to be compared with. */
const UNKNOWN = Object.freeze({ meanAbsError: NaN, meanSquaredError: NaN, relativeError: NaN, iterations: NaN });

/** As entry.ts says, through which the package exports it. */
export async function openModel(path: FilePath): Promise<Model> {
  const source = await openSource(pathOf(path, 'the model'));
  try {
    return new Model(source, await findLayers(source));
  } catch (error) {
    await source.close();
    throw error;
  }
}

const NOT_CLONEABLE = notCloneable('A Model, which stays in its thread: post its path, and open it there,');

/** A model on disk. Tensors are read when they are asked for; quantized layers go by the names that the original has. */
export class Model extends Closing {
  /** Where it was found: as it was given, or in the cache of Hugging Face. */
  readonly path: string;
  /** File after file: `<module>.weight` for a quantized layer, other tensors as they are called. */
  readonly names: readonly string[];
  /** Shape of each, by its name, in the order of `names`. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** What is known of each, in the order of `names`. */
  readonly tensors: readonly TensorInfo[];
  /** config.json; undefined for a single file. */
  readonly config: Readonly<Record<string, unknown>> | undefined;
  /** @internal */
  readonly notCloneable = NOT_CLONEABLE;
  readonly #source: TensorSource;
  readonly #entries = new Map<string, TensorEntry | StoredLayer>();

  /** @internal Use `openModel`. */
  constructor(source: TensorSource, layers: readonly StoredLayer[]) {
    super();
    this.#source = source;
    this.path = source.path;
    this.config = source.envelope.config;
    const places = new Map(layers.map((layer) => [layer.entries[0], layer]));
    const parts = new Set(layers.flatMap((layer) => layer.entries));
    const tensors: TensorInfo[] = [];
    for (const entry of source.entries.values()) {
      const layer = places.get(entry);
      if (layer) {
        this.#entries.set(weightName(layer), layer);
        tensors.push(describeLayer(layer));
      } else if (!parts.has(entry)) {
        const { name, shape, type, begin, end } = entry;
        this.#entries.set(name, entry);
        tensors.push(Object.freeze({ name, shape, dtype: type.name, bytes: end - begin }));
      }
    }
    this.names = Object.freeze([...this.#entries.keys()]);
    this.tensors = Object.freeze(tensors);
    this.shapes = new Map(tensors.map(({ name, shape }) => [name, shape]));
  }

  /** Whether there is a tensor of this name, or a weight of the module of this name. */
  has(name: string): boolean {
    refuseSurplus(arguments.length, 1, 'model.has(name)');
    return this.#entries.has(name) || this.#entries.has(`${name}.weight`);
  }

  /** Shape of a tensor, or of a module's weight: of a quantized layer always `[out, in]`, also where the original has `[in, out]`. */
  shape(name: string): readonly number[] {
    refuseSurplus(arguments.length, 1, 'model.shape(name)');
    return this.#find(name).shape;
  }

  /**
   * The numbers of a tensor, row-major in the order of `shape`. Blocks until they are read and dequantized; `load` does not.
   *
   * @param name A tensor's name, or a module's for its weight.
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not, or a tensor that is not floating-point.
   */
  tensor(name: string, options: TensorOptions = {}): OwnedFloat32Array {
    refuseSurplus(arguments.length, 2, 'model.tensor(name, options)');
    rejectUnknownOptions(options, ['rounding', 'dtype']);
    checkTensorOptions(options);
    const entry = this.#find(name);
    if (!isLayer(entry)) {
      const { bytes, finish } = prepareDense(entry, options);
      this.#source.readSync(entry, 0, bytes);
      return finish();
    }
    const { load, args, finish } = prepareLayer(entry, options);
    load.reads.forEach((read) => this.#source.readSync(read.entry, 0, read.into));
    runTaskSync(activeBackend(), 'dequantize', args());
    return finish();
  }

  /** `tensor`, read and computed without blocking the event loop. */
  async load(name: string, options: LoadOptions = {}): Promise<OwnedFloat32Array> {
    refuseSurplus(arguments.length, 2, 'model.load(name, options)');
    checkRunOptions(options, ['rounding', 'dtype']);
    checkTensorOptions(options);
    const { signal, threads } = options;
    signal?.throwIfAborted();
    const entry = this.#find(name);
    if (!isLayer(entry)) {
      const { bytes, finish } = prepareDense(entry, options);
      await this.#source.read(entry, 0, bytes, signal);
      return finish();
    }
    const { load, args, finish } = prepareLayer(entry, options, threads);
    await Promise.all(load.reads.map((read) => this.#source.read(read.entry, 0, read.into, signal)));
    await runTask(activeBackend(), 'dequantize', args(), { signal });
    return finish();
  }

  /**
   * A quantized layer as `quantize` gives it. Blocks until it is read. Its `stats` are NaN: what it was made from is not here.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not, or a tensor that is not quantized.
   */
  quantized(name: string): QuantizedTensor {
    refuseSurplus(arguments.length, 1, 'model.quantized(name)');
    const entry = this.#find(name);
    if (!isLayer(entry)) {
      const message = `Expected the name of a quantized layer, got ${quote(name)}, which is ${entry.type.name}.`;
      throw new HqqError('ERR_INVALID_ARGUMENT', message);
    }
    const { reads, finish } = schemeOf(entry).load(entry);
    reads.forEach((read) => this.#source.readSync(read.entry, 0, read.into));
    const tensor = finish();
    const shape = Object.freeze([tensor.shape[0], tensor.shape[1]] as const);
    return quantizedTensor({ ...tensor, shape, stats: UNKNOWN });
  }

  /**
   * A quantized layer, ready to multiply, with its bias. Blocks until it is read and laid out.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not, or a tensor that is not quantized.
   */
  linear(name: string, options: Omit<LinearOptions, 'bias'> = {}): QuantizedLinear {
    refuseSurplus(arguments.length, 2, 'model.linear(name, options)');
    const bias = this.bias(name);
    return new QuantizedLinear(this.quantized(name), bias ? { ...options, bias } : options);
  }

  /** Bias of a module, or of the module that a weight belongs to; undefined where it has none. Blocks until it is read. */
  bias(name: string): OwnedFloat32Array | undefined {
    refuseSurplus(arguments.length, 1, 'model.bias(name)');
    const entry = this.#find(name);
    if (isLayer(entry)) return entry.bias && this.tensor(entry.bias.name);
    const bias = `${this.#entries.has(name) ? layerOf(name) : name}.bias`;
    return this.#entries.has(bias) ? this.tensor(bias) : undefined;
  }

  /**
   * Closes the files, when the reads under way are done. Closing twice is fine; reading afterwards is an error, `ERR_CLOSED`.
   * `await using model = await openModel(path)` does it by itself, on Node.js from 20.5 on.
   */
  async close(): Promise<void> {
    refuseSurplus(arguments.length, 0, 'model.close()');
    await this.#source.close();
  }

  /** @internal */
  [INSPECT](): string {
    const quantized = this.tensors.filter((tensor) => tensor.quantized).length;
    return `Model { ${plain(this.path)}, ${plural(this.tensors.length, 'tensor')}, ${formatCount(quantized)} quantized }`;
  }

  #find(name: string): TensorEntry | StoredLayer {
    const entry = this.#entries.get(name) ?? this.#entries.get(`${name}.weight`);
    if (entry) return entry;
    const message = `Expected the name of a tensor of ${plain(this.path)}, got ${show(name)}.`;
    const near = typeof name === 'string' ? suggestion(name, this.names) : '';
    throw new HqqError('ERR_INVALID_ARGUMENT', message + near);
  }
}

function checkTensorOptions({ rounding, dtype }: TensorOptions): void {
  if (rounding !== undefined && rounding !== 'once' && rounding !== 'each') {
    throw new HqqError('ERR_INVALID_OPTION', `Expected rounding to be one of once, each, got ${show(rounding)}.`);
  }
  if (dtype !== undefined) checkDtype(dtype, 'dtype', 'ERR_INVALID_OPTION');
}

function isLayer(entry: TensorEntry | StoredLayer): entry is StoredLayer {
  return 'storage' in entry;
}

function describeLayer(layer: StoredLayer): TensorInfo {
  const { shape, entries, storage, bias } = layer;
  const bytes = entries.reduce((sum, { begin, end }) => sum + end - begin, 0);
  const quantized = Object.freeze({ ...storage, bias: bias !== undefined });
  return Object.freeze({ name: weightName(layer), shape, dtype: undefined, bytes, quantized });
}

/** Where the bytes of a dense tensor go, and how they become numbers. */
function prepareDense({ name, type, begin, end }: TensorEntry, { dtype: to = 'float32' }: TensorOptions) {
  const dtype = type.float;
  if (dtype === undefined) {
    const floats = DTYPE_NAMES.map((float) => storedFloat(float).name).join(', ');
    const message = `Expected the name of a floating-point tensor (${floats}), got ${quote(name)}, which is ${type.name}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', message);
  }
  const count = (end - begin) / DTYPES[dtype].bytes;
  const values = allocating(quote(name), () => largeFloats(count));
  const bytes = dtype === 'float32' ? bytesOf(values) : allocating(quote(name), () => new Uint8Array(end - begin));
  const finish = () => {
    if (dtype !== 'float32') widenBytes(bytes, dtype, values);
    return roundThrough(values, to);
  };
  return { bytes, finish };
}

/** Where the bytes of a layer go, what then is computed, and where its weights are. */
function prepareLayer(layer: StoredLayer, { rounding = 'once', dtype: given }: TensorOptions, threads?: number) {
  const { shape, name, storage } = layer;
  const count = shape[0] * shape[1];
  if (count > MAX_WEIGHTS) {
    const message = `Expected at most ${MAX_WEIGHTS} weights, got ${shape[0]} x ${shape[1]} in ${quote(name)}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message} Use dequantizeModel, which works in parts.`);
  }
  const dtype = given ?? (rounding === 'each' ? storage.computeDtype : 'float32');
  const load: LayerLoad = schemeOf(layer).load(layer);
  const out = allocating(`the weights of ${quote(name)}`, () => allocate(dtype, count));
  const resolved = resolveThreads(threads);
  const args = () => {
    const { packed, scale, zero, packing, groupSize, axis } = load.finish();
    const { rows, cols } = geometryOf(shape, { groupSize, axis });
    const format = formatNamed(packing)!;
    return groupedDequantizeArgs({
      rows,
      cols,
      format,
      axis,
      packed,
      scale,
      zero,
      dtype,
      rounding,
      out,
      threads: resolved,
    });
  };
  const finish = () => {
    if (out instanceof Float32Array) return out;
    const values = allocating(`the weights of ${quote(name)}`, () => new Float32Array(count));
    widenBytes(bytesOf(out), dtype, values);
    return values;
  };
  return { load, args, finish };
}
