import { bytesOf, narrowBytes } from '../../compute/floats.js';
import type { GraphInput } from '../../containers/runnable.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import { randomNumbers } from '../../runtime/text/sampling.js';
import type { OrtTensor } from './engine.js';

// Inputs of a graph by chance, of the sizes and types that it declares: what is called so is taken for what it is called.

const MASK = /mask/i;
const POSITIONS = /position/i;
const SEGMENTS = /token_type|segment/i;
const PAST = /past|cache_(?!position)|^cache/i;
const LENGTHS = /len(gth)?s?$/i;
const BATCH = /batch|^n$/i;

/** Sides of images whose size is not said, and their channels. */
const SIDE = 224;
const CHANNELS = 3;

/** Most numbers of an input. */
const MAX_NUMBERS = 2 ** 27;

export interface FeedOptions {
  /** Tokens, or rows, of sizes that are not said. */
  readonly length: number;
  readonly random: () => number;
  /** Ids of a text, in place of random ones. */
  readonly ids?: Uint32Array | undefined;
}

/** The first input of a graph that reads ids of tokens, which are below its `rows`. */
export const idsOf = (inputs: readonly GraphInput[]): GraphInput | undefined => inputs.find(isIds);

/** The length of texts where the graph says it; undefined where it leaves it open. */
export function fixedLength(inputs: readonly GraphInput[]): number | undefined {
  const last = idsOf(inputs)?.dims?.at(-1);
  return typeof last === 'number' ? last : undefined;
}

function isIds({ name, type, rows }: GraphInput): boolean {
  if (type !== 'int64' && type !== 'int32') return false;
  return rows !== undefined && !MASK.test(name) && !POSITIONS.test(name) && !SEGMENTS.test(name);
}

/** What a graph is given. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for inputs that cannot be made up */
export function randomFeeds(
  path: string,
  inputs: readonly GraphInput[],
  { length, random, ids }: FeedOptions,
): Readonly<Record<string, OrtTensor>> {
  const sizes = new Map<string, number>();
  const isText = idsOf(inputs) !== undefined;
  const feeds: Record<string, OrtTensor> = {};
  for (const input of inputs) {
    const dims = (input.dims ?? []).map((dim, i) => {
      if (typeof dim === 'number') return dim;
      const known = dim === '' || PAST.test(input.name) ? undefined : sizes.get(dim);
      const size = known ?? sizeOf(input, i, dim, length, isText);
      if (dim !== '') sizes.set(dim, sizes.get(dim) ?? size);
      return size;
    });
    const count = dims.reduce((product, size) => product * size, 1);
    if (!(count <= MAX_NUMBERS)) throw cannot(path, `input ${quote(input.name)} has the size [${dims.join(', ')}]`);
    feeds[input.name] = { type: input.type, dims, data: dataOf(path, input, dims, count, random, ids) };
  }
  return feeds;
}

function sizeOf({ name, type, dims }: GraphInput, i: number, dim: string, length: number, isText: boolean): number {
  const rank = dims!.length;
  const isFloat = type.startsWith('float');
  if (PAST.test(name) && isFloat) return BATCH.test(dim) || (dim === '' && i === 0) ? 1 : 0;
  if (rank >= 4 && isFloat) {
    if (i === 0) return 1;
    return i === 1 ? CHANNELS : SIDE;
  }
  // Rows that are independent of each other: as many as a text has tokens.
  if (rank === 2 && i === 0 && isFloat && !isText && typeof dims![1] === 'number') return length;
  if (BATCH.test(dim) || (i === 0 && rank >= 2)) return 1;
  return /past/i.test(dim) && !dim.includes('+') ? 0 : length;
}

function dataOf(
  path: string,
  { name, type, rows }: GraphInput,
  dims: readonly number[],
  count: number,
  random: () => number,
  ids: Uint32Array | undefined,
): unknown {
  const fill = <T>(array: T & { [i: number]: unknown }, value: (i: number) => unknown): T => {
    for (let i = 0; i < count; i++) array[i] = value(i);
    return array;
  };
  const isInteger = type === 'int64' || type === 'int32';
  if (isInteger) {
    const width = dims.at(-1) ?? 1;
    const draw = (i: number): number => {
      if (MASK.test(name)) return 1;
      if (POSITIONS.test(name)) return Math.min(i % width, (rows ?? Infinity) - 1);
      if (SEGMENTS.test(name)) return 0;
      if (rows !== undefined) return Math.min(ids?.[i % width] ?? Math.floor(random() * rows), rows - 1);
      return LENGTHS.test(name) ? width : 1;
    };
    return type === 'int64'
      ? fill(new BigInt64Array(count), (i) => BigInt(draw(i)))
      : fill(new Int32Array(count), draw);
  }
  if (type === 'bool') return new Uint8Array(count).fill(MASK.test(name) ? 1 : 0);
  const draw = MASK.test(name) ? () => 1 : normal(random);
  if (type === 'float32') return fill(new Float32Array(count), draw);
  if (type === 'float64') return fill(new Float64Array(count), draw);
  if (type === 'float16') {
    const halves = new Uint16Array(count);
    narrowBytes(fill(new Float32Array(count), draw), type, bytesOf(halves));
    return halves;
  }
  if (type === 'uint8') return fill(new Uint8Array(count), () => Math.floor(random() * 256));
  throw cannot(path, `input ${quote(name)} is of type ${type}`);
}

/** Normally distributed numbers. */
function normal(random: () => number): () => number {
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** A seed for a model of several: each its own. */
export const seedFor = (seed: number, index: number): number => (seed + index * 2 ** 44) % 2 ** 53;

export const numbersFor = (seed: number, index: number): (() => number) => randomNumbers(seedFor(seed, index));

const cannot = (path: string, what: string): HqqError =>
  new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${plain(path)}: ${what}, for which nothing is made up. Give inputs in a program (importance: { inputs }), or leave importance out (--importance none).`,
  );
