import { basename } from 'node:path';
import { bytesOf } from '../compute/floats.js';
import type { TensorEntry, TensorSource } from '../containers/container.js';
import { CONTAINERS, openSource } from '../containers/list.js';
import { layerOf } from '../containers/names.js';
import { storedFloat } from '../containers/stored-types.js';
import { type FilePath, pathOf } from '../files/path.js';
import { StagedOutput } from '../files/staged-output.js';
import { allocate, DTYPE_NAMES } from '../matrix/dtype.js';
import { checkObject, checkQuantized, MAX_WEIGHTS, readWeight } from '../matrix/validate.js';
import type { PlainWeight, QuantizedTensor, RawWeight, Weight } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { plain, quote } from '../messages/text.js';
import { SCHEMES } from '../schemes/list.js';
import type { Scheme, WholeTensor } from '../schemes/scheme.js';
import { fillLayer, findLayers, isLayer, readTensor, schemeOf, tensorsOf } from './layers.js';

/** Matrices by name, as `saveTensors` takes them. */
export type Tensors = Readonly<Record<string, QuantizedTensor | Weight>>;

/** Matrices by name, as `loadTensors` gives them. */
export type LoadedTensors = Record<string, QuantizedTensor | RawWeight>;

/** How `saveTensors` writes. */
export interface SaveOptions {
  /**
   * Texts that are kept in the file's header (`__metadata__`). `format` is always `pt`, which transformers demands.
   *
   * @default {}
   */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /**
   * Replace a file that exists.
   *
   * @default false
   */
  readonly force?: boolean | undefined;
}

/** As entry.ts says, through which the package exports it. */
export async function saveTensors(path: FilePath, tensors: Tensors, options: SaveOptions = {}): Promise<void> {
  const output = pathOf(path, 'the output', 'a .safetensors file');
  const { metadata, force } = checkOptions(options);
  checkObject(tensors, 'the tensors');
  const container = CONTAINERS.find(({ fresh }) => fresh)!;
  const scheme = SCHEMES.find(({ hold, containers }) => hold && containers.includes(container.name))!;
  const whole = partsOf(tensors, scheme);
  const file = basename(output);
  const envelope = container.fresh!(file, metadata);
  const layout = await container.layout(file, whole, envelope);
  const dense = new Set(Object.keys(tensors).filter((name) => !isQuantized(tensors[name])));
  const traces = scheme.traces({ entries: new Map([...layout.entries].filter(([name]) => dense.has(name))), envelope });
  if (traces !== undefined) {
    const message = `Expected names of matrices that cannot be taken for a layer's codes, but ${traces}`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message}. Call them otherwise.`);
  }
  const staged = await StagedOutput.begin(output, 'file', { made: container, force, inputs: [] });
  try {
    const sink = await container.create(staged.path, layout, await staged.modeOf('.'));
    try {
      for (const { name, bytes } of whole) await sink.write(name, 0, bytes);
      await sink.finish();
    } catch (error) {
      await sink.abandon();
      throw error;
    }
    await staged.commit();
  } catch (error) {
    await staged.abandon();
    throw error;
  }
}

/** As entry.ts says, through which the package exports it. */
export async function loadTensors(path: FilePath): Promise<LoadedTensors> {
  const source = await openSource(pathOf(path, 'the model'));
  try {
    const layers = await findLayers(source);
    const loaded: [string, QuantizedTensor | RawWeight][] = [];
    for (const [name, tensor] of tensorsOf(source, layers)) {
      if (isLayer(tensor)) {
        const load = schemeOf(tensor).load(tensor);
        await fillLayer(source, load, {});
        loaded.push([name, readTensor(load.finish())]);
      } else loaded.push([name, await readMatrix(source, tensor)]);
    }
    return Object.fromEntries(loaded); // own properties, `__proto__` too
  } finally {
    await source.close();
  }
}

function checkOptions(options: SaveOptions) {
  checkObject(options, 'the options');
  rejectUnknownOptions(options, ['metadata', 'force']);
  const { metadata = {}, force = false } = options;
  const refuse = (name: string, expected: string, got: unknown): never => {
    throw new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be ${expected}, got ${show(got)}.`);
  };
  if (typeof force !== 'boolean') refuse('force', 'true or false', force);
  const isObject = typeof metadata === 'object' && metadata !== null;
  if (!isObject) refuse('metadata', 'an object of texts', metadata);
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') refuse(`metadata[${show(key)}]`, 'a text', value);
  }
  return { metadata, force };
}

function isQuantized(tensor: QuantizedTensor | Weight | undefined): tensor is QuantizedTensor {
  return typeof tensor === 'object' && tensor !== null && 'packed' in tensor;
}

/** The tensors of the file, checked. */
function partsOf(tensors: Tensors, scheme: Scheme): readonly WholeTensor[] {
  const names = Object.keys(tensors);
  const quantized = names.filter((name) => isQuantized(tensors[name]));
  const layers = new Map(quantized.map((name) => [layerOf(name), name]));
  const owners = new Map<string, string>();
  const claim = (name: string, owner: string) => {
    const other = owners.get(name);
    if (other !== undefined) {
      const message = `Expected ${quote(owner)} and ${quote(other)} to be stored under names of their own, but both need`;
      throw new HqqError('ERR_INVALID_ARGUMENT', `${message} ${quote(name)}. Call one of them otherwise.`);
    }
    owners.set(name, owner);
  };
  return names.flatMap((name) => {
    const tensor = tensors[name]!;
    const held = naming(name, (): readonly WholeTensor[] => {
      if (isQuantized(tensor)) {
        checkQuantized(tensor);
        return scheme.hold!(name, tensor);
      }
      const { data, dtype, shape } = readWeight(tensor);
      return [{ name, type: storedFloat(dtype), shape: biasShape(name, shape, layers, tensors), bytes: bytesOf(data) }];
    });
    const marks = isQuantized(tensor) ? (scheme.marks ?? []).map((mark) => `${layerOf(name)}.${mark}`) : [];
    for (const part of new Set([...held.map((one) => one.name), ...marks])) claim(part, name);
    return held;
  });
}

/** Says of which tensor an error is. */
function naming<T>(name: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof HqqError)) throw error;
    throw new HqqError(error.code, `${quote(name)}: ${error.message}`, { cause: error });
  }
}

/** The shape of a matrix in the file: that of a layer's bias is a list of numbers. */
function biasShape(
  name: string,
  shape: PlainWeight['shape'],
  layers: ReadonlyMap<string, string>,
  tensors: Tensors,
): readonly number[] {
  const layer = name.endsWith('.bias') ? name.slice(0, -'.bias'.length) : undefined;
  const weight = layer === undefined ? undefined : layers.get(layer);
  if (weight === undefined || weight === layer) return shape; // a bare layer has none
  const [outs] = (tensors[weight] as QuantizedTensor).shape;
  if (shape[0] === 1 && shape[1] === outs) return [outs];
  const message = `Expected the bias of ${quote(weight)} to be 1 x ${outs}, got ${shape.join(' x ')}.`;
  throw new HqqError('ERR_INVALID_ARGUMENT', message);
}

async function readMatrix(source: TensorSource, entry: TensorEntry): Promise<RawWeight> {
  const { name, type, shape: stored } = entry;
  const shape = stored.length === 1 ? [1, stored[0]!] : stored;
  const [rows = 0, cols = 0] = shape;
  const count = rows * cols;
  const dtype = type.float;
  if (dtype === undefined || shape.length !== 2 || count === 0 || count > MAX_WEIGHTS) {
    const types = DTYPE_NAMES.map((one) => storedFloat(one).name).join(', ');
    const message = `Expected every tensor of ${plain(source.path)} to be a matrix or a list of ${types}`;
    const got = `${quote(name)}, ${type.name} [${stored.slice(0, 8).join(', ')}]`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, got ${got}. openModel reads the others one by one.`);
  }
  const data = allocating(quote(name), () => allocate(dtype, count));
  await source.read(entry, 0, bytesOf(data));
  return { data, dtype, shape };
}
