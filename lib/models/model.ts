import { activeBackend } from '../backend/index.js';
import { groupedDequantizeArgs } from '../compute/arguments.js';
import { QuantizedLinear } from '../compute/linear.js';
import type { LinearOptions } from '../compute/linear-options.js';
import { largeFloats } from '../compute/memory.js';
import { allocating, checkRunOptions, resolveThreads, runTask, runTaskSync } from '../compute/run.js';
import { Checkpoint, type CheckpointTensor } from '../containers/safetensors/checkpoint.js';
import { rejectUnknownOptions } from '../matrix/config.js';
import { allocate, DTYPES, type DType, dtypeFromSafetensors } from '../matrix/dtype.js';
import { allocateWords, packedRows } from '../matrix/format.js';
import { quantizedTensor } from '../matrix/quantized-tensor.js';
import { checkDtype, MAX_WEIGHTS } from '../matrix/validate.js';
import type { QuantizedTensor, RunOptions } from '../matrix/weight.js';
import { HqqError, show } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import { refuseSurplus } from '../messages/surplus.js';
import { plain, quote } from '../messages/text.js';
import { bytesOf, roundThrough, widenBytes } from '../schemes/hqq/half.js';
import { type ReadLayer, readLayers } from '../schemes/hqq/read-layers.js';
import { checkPath } from './options.js';
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
export async function openModel(path: string): Promise<Model> {
  checkPath(path, 'the model');
  const checkpoint = await Checkpoint.open(path);
  try {
    return new Model(checkpoint, await readLayers(checkpoint));
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** A model on disk. Tensors are read when they are asked for; quantized layers go by the names that the original has. */
export class Model {
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
  readonly #checkpoint: Checkpoint;
  readonly #entries = new Map<string, CheckpointTensor | ReadLayer>();

  /** @internal Use `openModel`. */
  constructor(checkpoint: Checkpoint, layers: ReadonlyMap<string, ReadLayer>) {
    this.#checkpoint = checkpoint;
    this.path = checkpoint.path;
    this.config = checkpoint.config?.value;
    const keys = new Set([...layers.values()].flatMap((layer) => layer.keys));
    const tensors: TensorInfo[] = [];
    for (const [name, tensor] of checkpoint.tensors) {
      const layer = name.endsWith('.W_q') ? layers.get(name.slice(0, -4)) : undefined;
      if (layer) {
        this.#entries.set(`${layer.module}.weight`, layer);
        tensors.push(describeLayer(layer));
      } else if (!keys.has(tensor)) {
        const { shape, dtype, begin, end } = tensor.entry;
        this.#entries.set(name, tensor);
        tensors.push(Object.freeze({ name, shape, dtype, bytes: end - begin }));
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

  /** Shape of a tensor, or of a module's weight. */
  shape(name: string): readonly number[] {
    refuseSurplus(arguments.length, 1, 'model.shape(name)');
    const entry = this.#find(name);
    return isLayer(entry) ? entry.shape : entry.entry.shape;
  }

  /**
   * The numbers of a tensor, row-major. Blocks until they are read and dequantized; `load` does not.
   *
   * @param name A tensor's name, or a module's for its weight.
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not, or a tensor that is not floating-point.
   */
  tensor(name: string, options: TensorOptions = {}): Float32Array {
    refuseSurplus(arguments.length, 2, 'model.tensor(name, options)');
    rejectUnknownOptions(options, ['rounding', 'dtype']);
    checkTensorOptions(options);
    const entry = this.#find(name);
    if (!isLayer(entry)) {
      const { bytes, finish } = prepareDense(entry, options);
      entry.file.readSync(entry.entry.begin, bytes);
      return finish();
    }
    const { job, finish } = prepareLayer(entry, options);
    job.reads.forEach(({ tensor, bytes }) => tensor.file.readSync(tensor.entry.begin, bytes));
    runTaskSync(activeBackend(), 'dequantize', job.args());
    return finish();
  }

  /** `tensor`, read and computed without blocking the event loop. */
  async load(name: string, options: LoadOptions = {}): Promise<Float32Array> {
    refuseSurplus(arguments.length, 2, 'model.load(name, options)');
    checkRunOptions(options, ['rounding', 'dtype']);
    checkTensorOptions(options);
    const { signal, threads } = options;
    signal?.throwIfAborted();
    const entry = this.#find(name);
    if (!isLayer(entry)) {
      const { bytes, finish } = prepareDense(entry, options);
      await entry.file.read(entry.entry.begin, bytes, signal);
      return finish();
    }
    const { job, finish } = prepareLayer(entry, options, threads);
    await Promise.all(job.reads.map(({ tensor, bytes }) => tensor.file.read(tensor.entry.begin, bytes, signal)));
    await runTask(activeBackend(), 'dequantize', job.args(), { signal });
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
      const message = `Expected the name of a quantized layer, got ${quote(name)}, which is ${entry.entry.dtype}.`;
      throw new HqqError('ERR_INVALID_ARGUMENT', message);
    }
    const { reads, arrays } = layerArrays(entry);
    reads.forEach(({ tensor, bytes }) => tensor.file.readSync(tensor.entry.begin, bytes));
    const { nbits, groupSize, axis, format } = entry;
    const shape = Object.freeze([entry.shape[0], entry.shape[1]] as const);
    return quantizedTensor({ nbits, groupSize, axis, shape, packing: format.packing, ...arrays(), stats: UNKNOWN });
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
  bias(name: string): Float32Array | undefined {
    refuseSurplus(arguments.length, 1, 'model.bias(name)');
    this.#find(name);
    const module = this.#entries.has(name) && name.endsWith('.weight') ? name.slice(0, -'.weight'.length) : name;
    return this.#entries.has(`${module}.bias`) ? this.tensor(`${module}.bias`) : undefined;
  }

  /** Closes the files, when the reads under way are done. Closing twice is fine; reading afterwards is an error. */
  async close(): Promise<void> {
    refuseSurplus(arguments.length, 0, 'model.close()');
    await this.#checkpoint.close();
  }

  #find(name: string): CheckpointTensor | ReadLayer {
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

function isLayer(entry: CheckpointTensor | ReadLayer): entry is ReadLayer {
  return 'packed' in entry;
}

function describeLayer(layer: ReadLayer): TensorInfo {
  const { module, shape, keys, packed, scale, zero, nbits, groupSize, axis, format, metaDtype, computeDtype, bias } =
    layer;
  const bytesIn = (tensors: readonly CheckpointTensor[]) =>
    tensors.reduce((sum, { entry }) => sum + entry.end - entry.begin, 0);
  const bitsPerWeight = (8 * bytesIn([packed, scale, zero])) / (shape[0] * shape[1]);
  const quantized = Object.freeze({
    ...{ nbits, groupSize, axis, packing: format.packing, metaDtype, computeDtype, bitsPerWeight },
    bias: bias !== undefined,
  });
  return Object.freeze({ name: `${module}.weight`, shape, dtype: undefined, bytes: bytesIn(keys), quantized });
}

interface Read {
  readonly tensor: CheckpointTensor;
  readonly bytes: Uint8Array;
}

/** Where the bytes of a dense tensor go, and how they become numbers. */
function prepareDense(tensor: CheckpointTensor, { dtype: to = 'float32' }: TensorOptions) {
  const { name, dtype: stored, begin, end } = tensor.entry;
  const dtype = dtypeFromSafetensors(stored);
  if (dtype === undefined) {
    const message = `Expected the name of a floating-point tensor (F32, F16, BF16), got ${quote(name)}, which is ${stored}.`;
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

/** Arrays for a layer's codes, scales and zeros: filled by `reads`, then given by `arrays`. */
function layerArrays({ module, geometry, format, packed, scale, zero }: ReadLayer) {
  const { rows, cols, groups } = geometry;
  const words = allocating(`the codes of ${quote(module)}`, () =>
    allocateWords(format, packedRows(format, rows) * cols),
  );
  const meta = [scale, zero].map((tensor) => {
    const dtype = dtypeFromSafetensors(tensor.entry.dtype)!;
    const values = new Float32Array(groups);
    const bytes = dtype === 'float32' ? bytesOf(values) : new Uint8Array(groups * DTYPES[dtype].bytes);
    const widened = () => {
      if (dtype !== 'float32') widenBytes(bytes, dtype, values);
      return values;
    };
    return { read: { tensor, bytes }, widened };
  }) as [Meta, Meta];
  const reads: readonly Read[] = [{ tensor: packed, bytes: bytesOf(words) }, ...meta.map(({ read }) => read)];
  return { reads, arrays: () => ({ packed: words, scale: meta[0].widened(), zero: meta[1].widened() }) };
}

interface Meta {
  readonly read: Read;
  readonly widened: () => Float32Array;
}

function prepareLayer(layer: ReadLayer, { rounding = 'once', dtype: given }: TensorOptions, threads?: number) {
  const { axis, format, geometry, shape, module, computeDtype } = layer;
  const { rows, cols } = geometry;
  if (rows * cols > MAX_WEIGHTS) {
    const message = `Expected at most ${MAX_WEIGHTS} weights, got ${shape[0]} x ${shape[1]} in ${quote(module)}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message} Use dequantizeModel, which works in parts.`);
  }
  const dtype = given ?? (rounding === 'each' ? computeDtype : 'float32');
  const { reads, arrays } = layerArrays(layer);
  const out = allocating(`the weights of ${quote(module)}`, () => allocate(dtype, rows * cols));
  const resolved = resolveThreads(threads);
  const args = () =>
    groupedDequantizeArgs({ rows, cols, format, axis, dtype, rounding, out, threads: resolved, ...arrays() });
  const finish = () => {
    if (out instanceof Float32Array) return out;
    const values = allocating(`the weights of ${quote(module)}`, () => new Float32Array(rows * cols));
    widenBytes(bytesOf(out), dtype, values);
    return values;
  };
  return { job: { reads, args }, finish };
}
