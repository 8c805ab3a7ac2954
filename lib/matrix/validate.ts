import { HqqError, show } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import { checkBuffer, checkInput, conversionHint, isBuffer, typedArrayClass } from './arrays.js';
import { NBITS, type ResolvedQuantConfig } from './config.js';
import { DTYPE_NAMES, DTYPES, type DType } from './dtype.js';
import { FORMATS, formatNamed, type PackFormat, packedRows } from './format.js';
import { type Geometry, geometryOf } from './geometry.js';
import type { PlainWeight, QuantizedTensorLike, Weight } from './weight.js';

/**
 * Most weights of a matrix. Positions in it are counted in 32 bits where it is fast, and its float32 form must fit a typed
 * array; the largest matrices of known models have a quarter of this.
 */
export const MAX_WEIGHTS = 2 ** 31 - 1;

function refuse(message: string): never {
  throw new HqqError('ERR_INVALID_ARGUMENT', message);
}

/** An object, for what reads its fields. A promise of one has none of them yet. */
export function checkObject(value: unknown, name: string): void {
  if (typeof (value as { then?: unknown } | null | undefined)?.then === 'function') {
    refuse(`Expected ${name} to be an object, got a Promise: await it.`);
  }
  if (typeof value !== 'object' || value === null) refuse(`Expected ${name} to be an object, got ${show(value)}.`);
}

/** Two positive integers whose product is at most `MAX_WEIGHTS`. */
export function checkShape(shape: unknown, name: string): asserts shape is readonly [number, number] {
  const isSize = (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0;
  if (!Array.isArray(shape) || shape.length !== 2 || !shape.every(isSize)) {
    refuse(`Expected ${name} to be two positive integers, got ${show(shape)}.`);
  }
  const [rows, cols] = shape as [number, number];
  if (rows * cols > MAX_WEIGHTS) {
    refuse(`Expected ${name} to have at most ${MAX_WEIGHTS} weights, got ${rows} x ${cols} = ${rows * cols}.`);
  }
}

/** @throws {HqqError} `code`, naming the types there are. */
export function checkDtype(
  dtype: unknown,
  name: string,
  code: 'ERR_INVALID_ARGUMENT' | 'ERR_INVALID_OPTION' = 'ERR_INVALID_ARGUMENT',
): asserts dtype is DType {
  if ((DTYPE_NAMES as readonly unknown[]).includes(dtype)) return;
  const hint = typeof dtype === 'string' ? suggestion(dtype, DTYPE_NAMES) : '';
  throw new HqqError(code, `Expected ${name} to be one of ${DTYPE_NAMES.join(', ')}, got ${show(dtype)}.${hint}`);
}

interface Arrays {
  Float32Array: Float32Array;
  Uint16Array: Uint16Array;
  Uint8Array: Uint8Array;
  Int32Array: Int32Array;
}

/** Whether it is a typed array of that class, of whatever realm. */
export function isArray<K extends keyof Arrays>(value: unknown, kind: K): value is Arrays[K] {
  return typedArrayClass(value) === kind;
}

/** A typed array of class `kind`, of `length` elements, whose memory is there and stays there. */
export function checkArray(array: unknown, name: string, kind: keyof Arrays, length: number, because: string): void {
  if (!isArray(array, kind)) {
    const article = kind === 'Int32Array' ? 'an' : 'a';
    const hint = kind === 'Float32Array' ? conversionHint(array, name) : '';
    refuse(`Expected ${name} to be ${article} ${kind} ${because}, got ${show(array)}.${hint}`);
  }
  checkInput(array, name);
  if (array.length !== length) refuse(`Expected ${name} to have ${length} elements ${because}, got ${array.length}.`);
}

/** Classes of arrays that say what they hold. */
const SPEAKING: Readonly<Record<string, DType>> = { Float32Array: 'float32', Float16Array: 'float16' };

/**
 * Checks a weight, in whatever form it may come.
 *
 * @returns On the same memory, save where its bytes are not aligned to numbers: then on a copy.
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`, saying which field is not what.
 */
export function readWeight(weight: Weight): PlainWeight {
  checkObject(weight, 'weight');
  if (Array.isArray(weight) || typedArrayClass(weight) !== undefined) {
    refuse(`Expected weight to be an object { data, shape: [outFeatures, inFeatures] }, got ${show(weight)}.`);
  }
  const { data, dtype = SPEAKING[typedArrayClass(data) ?? ''], shape } = weight;
  const conversion = typedArrayClass(data) === 'Float16Array' ? '' : conversionHint(data, 'weight.data');
  // Of what is to be converted, its dtype does not matter.
  const isDtype = (DTYPE_NAMES as readonly unknown[]).includes(dtype);
  if (!isDtype && (conversion !== '' || (data === undefined && dtype === undefined))) {
    refuse(
      `Expected weight.data to be a Float32Array, or raw bits or bytes with a dtype, got ${show(data)}.${conversion}`,
    );
  }
  if (dtype === undefined) {
    const names = DTYPE_NAMES.join(', ');
    refuse(`Expected weight.dtype to say what ${show(data)} holds, one of ${names}, got undefined.`);
  }
  checkDtype(dtype, 'weight.dtype');
  checkShape(shape, 'weight.shape');
  const [rows, cols] = shape;
  const numbers = numbersOf(data, dtype, rows * cols);
  const kind = kindOf(dtype);
  if (numbers === undefined) {
    const hint = kind === 'Uint16Array' ? ' of raw bits' : '';
    refuse(
      `Expected weight.data to be a ${kind}${hint}, or bytes, for dtype ${dtype}, got ${show(data)}.${conversion}`,
    );
  }
  checkArray(numbers, 'weight.data', kind, rows * cols, `for shape ${rows} x ${cols}`);
  return { data: numbers, dtype, shape: Object.freeze([rows, cols] as const) };
}

/** The class of arrays that hold numbers of `dtype`. */
function kindOf(dtype: DType): 'Float32Array' | 'Uint16Array' {
  return dtype === 'float32' ? 'Float32Array' : 'Uint16Array';
}

/** `data` as an array of the class that holds `dtype`; undefined where it is neither that nor bytes. */
function numbersOf(data: unknown, dtype: DType, count: number): Float32Array | Uint16Array | undefined {
  const kind = kindOf(dtype);
  const { bytes: size } = DTYPES[dtype];
  if (isArray(data, kind)) return data;
  const given = typedArrayClass(data);
  const isBits = given === 'Float16Array' && dtype === 'float16';
  if (!isBits && given !== 'Uint8Array' && !isBuffer(data)) return undefined;
  const [buffer, offset, length] = isBuffer(data)
    ? [data, 0, data.byteLength]
    : [(data as Uint8Array).buffer, (data as Uint8Array).byteOffset, (data as Uint8Array).byteLength];
  checkBuffer(buffer, 'weight.data');
  if (length !== count * size) {
    refuse(`Expected weight.data to have ${count * size} bytes for ${count} weights of ${dtype}, got ${length}.`);
  }
  const isAligned = offset % size === 0;
  const memory = isAligned ? buffer : buffer.slice(offset, offset + length);
  return kind === 'Float32Array'
    ? new Float32Array(memory, isAligned ? offset : 0, count)
    : new Uint16Array(memory, isAligned ? offset : 0, count);
}

/** Checks those fields of a matrix of codes that say how its groups lie. @throws {HqqError} `ERR_INVALID_ARGUMENT` */
export function checkGrouped({
  nbits,
  axis,
  shape,
  groupSize,
}: Pick<QuantizedTensorLike, 'nbits' | 'axis' | 'shape' | 'groupSize'>): void {
  if (!NBITS.includes(nbits)) refuse(`Expected nbits to be one of ${NBITS.join(', ')}, got ${show(nbits)}.`);
  if (axis !== 0 && axis !== 1) refuse(`Expected axis to be 0 or 1, got ${show(axis)}.`);
  checkShape(shape, 'shape');
  if (!Number.isSafeInteger(groupSize) || groupSize <= 0) {
    refuse(`Expected groupSize to be a positive integer, got ${show(groupSize)}.`);
  }
}

/** What the fields of a quantized tensor imply. */
interface TensorLayout {
  readonly geometry: Geometry;
  readonly format: PackFormat;
}

/**
 * Checks that the fields of a quantized tensor fit each other; the numbers in it may be any.
 *
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`, or `ERR_GROUP_SIZE`
 */
export function checkQuantized(q: QuantizedTensorLike): TensorLayout {
  checkObject(q, 'the quantized tensor');
  if (q.packed === undefined && (q as { data?: unknown }).data !== undefined) {
    refuse('Expected a quantized tensor, got a weight, { data, shape }. Quantize it first: await quantize(weight).');
  }
  checkGrouped(q);
  const format = checkPacking(q.packing);
  if (format.codeBits < q.nbits) refuse(`Expected packing to hold ${q.nbits} bits, got ${q.packing}.`);
  const geometry = geometryOf(q.shape, q as Pick<ResolvedQuantConfig, 'groupSize' | 'axis'>);
  const { rows, cols, groups } = geometry;
  const words = packedRows(format, rows) * cols;
  const grouped = `for ${q.shape[0]} x ${q.shape[1]} weights in groups of ${q.groupSize}`;
  checkArray(
    q.packed,
    'packed',
    format.wordBytes === 1 ? 'Uint8Array' : 'Int32Array',
    words,
    `${grouped} as ${q.packing}`,
  );
  checkArray(q.scale, 'scale', 'Float32Array', groups, grouped);
  checkArray(q.zero, 'zero', 'Float32Array', groups, grouped);
  return { geometry, format };
}

/** The layout of that name. */
export function checkPacking(packing: unknown): PackFormat {
  const format = typeof packing === 'string' ? formatNamed(packing) : undefined;
  if (format) return format;
  return refuse(`Expected packing to be one of ${FORMATS.map((f) => f.packing).join(', ')}, got ${show(packing)}.`);
}
