import { activeBackend } from '../backend/index.js';
import { roundThroughLater } from '../compute/later.js';
import { QuantizedLinear } from '../compute/linear.js';
import { checkStoredLayerOptions, checkStoredLinearOptions, type LinearOptions } from '../compute/linear-options.js';
import { checkRunOptions, runTask, runTaskSync } from '../compute/run.js';
import type { Obstacle, TensorEntry, TensorSource } from '../containers/container.js';
import { openSource } from '../containers/list.js';
import { layerOf } from '../containers/names.js';
import { type FilePath, pathOf } from '../files/path.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import type { QuantizedTensor, RunOptions } from '../matrix/weight.js';
import { HqqError, show } from '../messages/errors.js';
import { Closing, INSPECT, notCloneable } from '../messages/objects.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { suggestion } from '../messages/suggestion.js';
import { refuseSurplus } from '../messages/surplus.js';
import { plain, quote } from '../messages/text.js';
import { formatCount, plural } from '../messages/units.js';
import { engineLayer, enginesOf } from '../schemes/engines.js';
import type { LayerLoad, StoredLayer } from '../schemes/scheme.js';
import { decodeRows } from './decode-rows.js';
import {
  fillLayer,
  fillLayerSync,
  findLayers,
  isLayer,
  readTensor,
  schemeOf,
  tensorsOf,
  weightName,
} from './layers.js';
import {
  checkTensorOptions,
  floatsFor,
  layerRead,
  Pieces,
  readDense,
  readDenseSync,
  readRows,
  type TensorOptions,
} from './read-tensor.js';
import type { TensorInfo } from './report.js';

/** `tensor` without blocking, and with what every call takes. */
export type LoadOptions = TensorOptions & RunOptions;

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
  readonly #pieces = new Pieces();
  readonly #entries: ReadonlyMap<string, TensorEntry | StoredLayer>;

  /** @internal Use `openModel`. */
  constructor(source: TensorSource, layers: readonly StoredLayer[]) {
    super();
    this.#source = source;
    this.path = source.path;
    this.config = source.envelope.config;
    this.#entries = tensorsOf(source, layers);
    const tensors = [...this.#entries.values()].map((entry) =>
      isLayer(entry) ? describeLayer(entry) : describeDense(entry),
    );
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
    if (!isLayer(entry)) return readDenseSync(this.#source, entry, options);
    const { load, steps, finish } = layerRead(entry, options);
    fillLayerSync(this.#source, load);
    runTaskSync(activeBackend(), 'sequence', { steps: steps() });
    return finish();
  }

  /** `tensor`, read and computed without blocking the event loop. */
  async load(name: string, options: LoadOptions = {}): Promise<OwnedFloat32Array> {
    refuseSurplus(arguments.length, 2, 'model.load(name, options)');
    checkRunOptions(options, ['rounding', 'dtype']);
    checkTensorOptions(options);
    const { signal, threads } = options;
    const run = { signal, threads };
    signal?.throwIfAborted();
    const entry = this.#find(name);
    if (!isLayer(entry)) {
      const values = floatsFor(entry);
      await readDense(this.#source, entry, 0, values, this.#pieces, run);
      return roundThroughLater(values, options.dtype ?? 'float32', run);
    }
    const { load, steps, finishLater } = layerRead(entry, options, threads);
    await fillLayer(this.#source, load, run);
    await runTask(activeBackend(), 'sequence', { steps: steps() }, run);
    return finishLater(run);
  }

  /** `load` into memory that is there, and as long as the tensor. @internal */
  async loadInto(name: string, out: Float32Array, run: RunOptions): Promise<void> {
    run.signal?.throwIfAborted();
    const entry = this.#find(name);
    if (!isLayer(entry)) return readDense(this.#source, entry, 0, out, this.#pieces, run);
    const { load, steps } = layerRead(entry, {}, run.threads, out);
    await fillLayer(this.#source, load, run);
    await runTask(activeBackend(), 'sequence', { steps: steps() }, run);
  }

  /** Rows of a matrix, one after the other in `out`. Of a quantized one, only the parts that hold them are decoded. @internal */
  async loadRows(name: string, rows: ArrayLike<number>, out: Float32Array, run: RunOptions): Promise<void> {
    const entry = this.#find(name);
    if (isLayer(entry)) await decodeRows(this.#source, entry, rows, out, run);
    else await readRows(this.#source, entry, rows, out, this.#pieces, run);
  }

  /**
   * A quantized layer as `quantize` gives it. Blocks until it is read. Its `stats` are NaN: what it was made from is not here.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not, or a tensor that is not quantized.
   */
  quantized(name: string): QuantizedTensor {
    refuseSurplus(arguments.length, 1, 'model.quantized(name)');
    const load = this.#quantizedRead(name);
    fillLayerSync(this.#source, load);
    return readTensor(load.finish());
  }

  /** `quantized`, read without blocking the event loop. */
  async loadQuantized(name: string, run: RunOptions = {}): Promise<QuantizedTensor> {
    refuseSurplus(arguments.length, 2, 'model.loadQuantized(name, run)');
    checkRunOptions(run);
    run.signal?.throwIfAborted();
    const load = this.#quantizedRead(name);
    await fillLayer(this.#source, load, run);
    return readTensor(load.finish());
  }

  /**
   * A quantized layer, ready to multiply, with the model's own bias, or none where the model has none. Blocks until it is read and laid out.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not, or a tensor that is not quantized; `ERR_INVALID_OPTION`, also
   *   for a `bias`: that goes to `new QuantizedLinear(model.quantized(name), { bias })`.
   */
  linear(name: string, options: Omit<LinearOptions, 'bias'> = {}): QuantizedLinear {
    refuseSurplus(arguments.length, 2, 'model.linear(name, options)');
    const { activations } = checkStoredLinearOptions(options);
    const q = this.quantized(name);
    return new QuantizedLinear(q, { activations, bias: this.bias(name) });
  }

  /**
   * `linear`, read and laid out without blocking the event loop. What `options` says is taken when it is called.
   *
   * @example const layer = await model.loadLinear('model.layers.0.mlp.up_proj', { activations: 'int8' });
   */
  async loadLinear(name: string, options: Omit<LinearOptions, 'bias'> & RunOptions = {}): Promise<QuantizedLinear> {
    refuseSurplus(arguments.length, 2, 'model.loadLinear(name, options)');
    const { activations, run } = checkStoredLayerOptions(options);
    const q = await this.loadQuantized(name, run);
    const bias = await this.loadBias(name, run);
    return QuantizedLinear.create(q, { activations, bias, ...run });
  }

  /** Bias of a module, or of the module that a weight belongs to; undefined where it has none. Blocks until it is read. */
  bias(name: string): OwnedFloat32Array | undefined {
    refuseSurplus(arguments.length, 1, 'model.bias(name)');
    const bias = this.#biasName(name);
    return bias === undefined ? undefined : this.tensor(bias);
  }

  /** `bias`, read without blocking the event loop. */
  async loadBias(name: string, run: RunOptions = {}): Promise<OwnedFloat32Array | undefined> {
    refuseSurplus(arguments.length, 2, 'model.loadBias(name, run)');
    checkRunOptions(run);
    const bias = this.#biasName(name);
    return bias === undefined ? undefined : this.load(bias, run);
  }

  /**
   * Closes the files, when the reads under way are done. Closing twice is fine; reading afterwards is an error, `ERR_CLOSED`.
   * `await using model = await openModel(path)` does it by itself, on Node.js from 20.5 on.
   */
  async close(): Promise<void> {
    refuseSurplus(arguments.length, 0, 'model.close()');
    await this.#source.close();
  }

  /** @internal Whether it is a graph, which says itself how it is computed. */
  get isGraph(): boolean {
    return this.#source.graphs !== undefined;
  }

  /** @internal Why it is not one of floats: another tool has quantized it, or it is an adapter. */
  obstacle(): Obstacle | undefined {
    return this.#source.envelope.obstacle(this.#source.entries);
  }

  /**
   * @internal The formats that its quantized layers are stored in, and the engines in Python that load it, as far as its layers tell; without
   * quantized layers there are none of the former, and none of the latter is named. And what its weights were, where they are read as others.
   */
  loading(): { readonly formats: readonly string[]; readonly loads: readonly string[]; readonly origin?: string } {
    const layers = [...this.#entries.values()].filter(isLayer);
    const formats = [...new Set(layers.map(({ scheme }) => scheme))];
    const { origin, config } = this.#source.envelope;
    const stays = [...this.#entries.values()].filter((entry) => !isLayer(entry)).map(({ name }) => layerOf(name));
    const loads = layers.length === 0 ? [] : enginesOf(layers.map(engineLayer), stays, config);
    return { formats, loads, ...(origin === undefined ? {} : { origin }) };
  }

  /** @internal The text of a file beside its tensors, where it is made and lies nowhere; undefined for one that is none such. */
  madeText(name: string): string | undefined {
    for (const companion of this.#source.envelope.companions(new Map()))
      if (companion.name === name && 'text' in companion) return companion.text;
    return undefined;
  }

  /** @internal */
  [INSPECT](): string {
    const quantized = this.tensors.filter((tensor) => tensor.quantized).length;
    return `Model { ${plain(this.path)}, ${plural(this.tensors.length, 'tensor')}, ${formatCount(quantized)} quantized }`;
  }

  #biasName(name: string): string | undefined {
    const entry = this.#find(name);
    if (isLayer(entry)) return entry.bias?.name;
    const bias = `${this.#entries.has(name) ? layerOf(name) : name}.bias`;
    return this.#entries.has(bias) ? bias : undefined;
  }

  #quantizedRead(name: string): LayerLoad {
    const entry = this.#find(name);
    if (isLayer(entry)) return schemeOf(entry).load(entry);
    const message = `Expected the name of a quantized layer, got ${quote(name)}, which is ${entry.type.name}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', message);
  }

  #find(name: string): TensorEntry | StoredLayer {
    const entry = this.#entries.get(name) ?? this.#entries.get(`${name}.weight`);
    if (entry) return entry;
    const message = `Expected the name of a tensor of ${plain(this.path)}, got ${show(name)}.`;
    const near = typeof name === 'string' ? suggestion(name, this.names) : '';
    throw new HqqError('ERR_INVALID_ARGUMENT', message + near);
  }
}

function describeDense({ name, shape, type, begin, end }: TensorEntry): TensorInfo {
  return Object.freeze({ name, shape, dtype: type.name, bytes: end - begin });
}

function describeLayer(layer: StoredLayer): TensorInfo {
  const { shape, entries, storage, bias } = layer;
  const bytes = entries.reduce((sum, { begin, end }) => sum + end - begin, 0);
  const quantized = Object.freeze({ ...storage, bias: bias !== undefined });
  return Object.freeze({ name: weightName(layer), shape, dtype: undefined, bytes, quantized });
}
