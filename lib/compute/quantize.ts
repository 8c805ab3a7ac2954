import type { FloatBits } from '../../binding.js';
import type { OwnedFloat32Array, OwnedInt32Array, OwnedUint8Array, OwnedUint16Array } from '../matrix/arrays.js';
import type { QuantConfig } from '../matrix/config.js';
import { allocate, type DType } from '../matrix/dtype.js';
import { allocateWords, holdsRows, type Packing, packedRows } from '../matrix/format.js';
import { checkArray, checkDtype, checkPacking, checkQuantized, checkShape } from '../matrix/validate.js';
import type { QuantizedTensor, QuantizedTensorLike, QuantizeOptions, RunOptions, Weight } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import { HqqError, show } from '../messages/errors.js';
import { refuseSurplus } from '../messages/surplus.js';
import * as grouped from './arguments.js';
import { activeBackend } from './host.js';
import { quantizeJob } from './quantize-job.js';
import { checkRunOptions, pinInputs, resolveThreads, runTask, runTaskSync } from './run.js';
import { dequantizeArgs } from './tensor-arguments.js';

/**
 * Quantizes a weight matrix, on other threads.
 *
 * `weight.data` must not be written to until the promise settles, and its buffer can never be transferred to another thread
 * afterwards (`markAsUntransferable`): native code reads it in place.
 *
 * Any shape can be quantized. Where the default group size or axis does not fit it, others are taken, and where codes cannot
 * share words they take a byte each; `adapted` of the result says so. What the configuration names is kept, or an error.
 *
 * @example
 * const q = await quantize({ data, dtype: 'bfloat16', shape: [4096, 4096] }, { nbits: 4, groupSize: 64 });
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_INVALID_ARGUMENT`, `ERR_GROUP_SIZE`, `ERR_NON_FINITE_WEIGHT`, `ERR_OUT_OF_MEMORY`;
 *   the signal's reason when it is aborted.
 */
export async function quantize(
  weight: Weight,
  config?: QuantConfig,
  run: QuantizeOptions = {},
): Promise<QuantizedTensor> {
  refuseSurplus(arguments.length, 3, 'quantize(weight, config, run)');
  const job = quantizeJob(weight, config, run);
  let step = job.next();
  for (; !step.done; step = job.next()) {
    const { operation, args } = step.value;
    if ('weights' in args) pinInputs(args.weights);
    await runTask(activeBackend(), operation, args, run);
  }
  return step.value;
}

/** `quantize` on the calling thread: it returns when the work is done. */
export function quantizeSync(weight: Weight, config?: QuantConfig, run: QuantizeOptions = {}): QuantizedTensor {
  refuseSurplus(arguments.length, 3, 'quantizeSync(weight, config, run)');
  const job = quantizeJob(weight, config, run);
  let step = job.next();
  for (; !step.done; step = job.next()) runTaskSync(activeBackend(), step.value.operation, step.value.args, run);
  return step.value;
}

/** How `dequantize` runs, and what it gives. */
export interface DequantizeOptions extends RunOptions {
  /**
   * Type of the result; float16 and bfloat16 are raw bits in a `Uint16Array`.
   *
   * @default 'float32'
   */
  readonly dtype?: DType | undefined;
  /**
   * `'once'` computes in float32 and rounds the result to `dtype`. `'each'` rounds after every operation, scale and zero
   * first: the bits that the reference gives when its layer computes in `dtype`. The same for float32.
   *
   * @default 'once'
   */
  readonly rounding?: 'once' | 'each' | undefined;
  /**
   * Where to write, `[outFeatures * inFeatures]` of `dtype`: it is what the call returns. Spares a server that dequantizes
   * again and again the cost of fresh memory.
   *
   * @default a new array
   */
  readonly out?: Float32Array | Uint16Array | undefined;
}

type New = DequantizeOptions & { readonly out?: undefined };
type NewFloats = New & { readonly dtype?: 'float32' | undefined };
type NewHalves = New & { readonly dtype: 'float16' | 'bfloat16' };
type Into<T> = DequantizeOptions & { readonly out: T };

/**
 * Gives back the weights that the codes stand for, `(code - zero) * scale`, row-major `[outFeatures, inFeatures]`, on other
 * threads.
 *
 * The arrays of `q` must not be written to until the promise settles, and their buffers can never be transferred to another
 * thread afterwards (`markAsUntransferable`): native code reads them in place.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_INVALID_ARGUMENT`, `ERR_GROUP_SIZE`, `ERR_OUT_OF_MEMORY`; the signal's reason when
 *   it is aborted.
 */
export function dequantize(q: QuantizedTensorLike, options?: NewFloats): Promise<OwnedFloat32Array>;
export function dequantize(q: QuantizedTensorLike, options: NewHalves): Promise<OwnedUint16Array>;
export function dequantize<T extends FloatBits>(q: QuantizedTensorLike, options: Into<T>): Promise<T>;
export function dequantize(q: QuantizedTensorLike, options?: DequantizeOptions): Promise<Float32Array | Uint16Array>;
export async function dequantize(q: QuantizedTensorLike, options: DequantizeOptions = {}): Promise<FloatBits> {
  refuseSurplus(arguments.length, 2, 'dequantize(q, options)');
  const args = argumentsOf(q, options);
  pinInputs(q.packed, q.scale, q.zero, args.out);
  await runTask(activeBackend(), 'dequantize', args, options);
  return args.out;
}

/** `dequantize` on the calling thread: it returns when the work is done. */
export function dequantizeSync(q: QuantizedTensorLike, options?: NewFloats): OwnedFloat32Array;
export function dequantizeSync(q: QuantizedTensorLike, options: NewHalves): OwnedUint16Array;
export function dequantizeSync<T extends FloatBits>(q: QuantizedTensorLike, options: Into<T>): T;
export function dequantizeSync(q: QuantizedTensorLike, options?: DequantizeOptions): Float32Array | Uint16Array;
export function dequantizeSync(q: QuantizedTensorLike, options: DequantizeOptions = {}): FloatBits {
  refuseSurplus(arguments.length, 2, 'dequantizeSync(q, options)');
  const args = argumentsOf(q, options);
  runTaskSync(activeBackend(), 'dequantize', args, options);
  return args.out;
}

function argumentsOf(q: QuantizedTensorLike, options: DequantizeOptions) {
  checkRunOptions(options, ['dtype', 'rounding', 'out']);
  const { dtype = 'float32', rounding = 'once' } = options;
  checkDtype(dtype, 'dtype', 'ERR_INVALID_OPTION');
  if (rounding !== 'once' && rounding !== 'each') {
    throw new HqqError('ERR_INVALID_OPTION', `Expected rounding to be one of once, each, got ${show(rounding)}.`);
  }
  checkQuantized(q);
  const [rows, cols] = q.shape;
  const weights = `${rows} x ${cols} weights`;
  if (options.out !== undefined) {
    checkArray(options.out, 'out', dtype === 'float32' ? 'Float32Array' : 'Uint16Array', rows * cols, `for ${weights}`);
  }
  const out = options.out ?? allocating(`${weights} as ${dtype}`, () => allocate(dtype, rows * cols));
  return dequantizeArgs(q, { dtype, rounding, out, threads: resolveThreads(options.threads) });
}

/**
 * Packs codes into words, as checkpoints hold them.
 *
 * @param codes Row-major `[rows, cols]`: the grouped code matrix, which `unpack` gives back.
 * @returns `[ceil(rows / fields), cols]` words; 32-bit ones for `3bit_32`.
 * @throws {HqqError} `ERR_PACK_ROWS` when the layout cannot hold this number of rows without loss, `ERR_INVALID_ARGUMENT`.
 */
export function pack(codes: Uint8Array, shape: readonly number[], packing: Packing): OwnedUint8Array | OwnedInt32Array {
  refuseSurplus(arguments.length, 3, 'pack(codes, shape, packing)');
  const format = checkPacking(packing);
  checkShape(shape, 'shape');
  const [rows, cols] = shape;
  checkArray(codes, 'codes', 'Uint8Array', rows * cols, `for shape ${rows} x ${cols}`);
  if (!holdsRows(format, rows)) {
    throw new HqqError(
      'ERR_PACK_ROWS',
      `Expected the rows to be a multiple of ${format.fields} for ${packing}, got ${rows}.`,
    );
  }
  checkCodes(codes, 2 ** format.codeBits - 1, packing);
  const packed = allocating('the packed codes', () => allocateWords(format, packedRows(format, rows) * cols));
  runTaskSync(
    activeBackend(),
    'pack',
    grouped.packArgs({ rows, cols, format, codes, packed, threads: resolveThreads() }),
  );
  return packed;
}

/** The bits that any code has, four codes at a time: looking at each by itself would take longer than packing. */
function bitsOfAll(codes: Uint8Array): number {
  const start = Math.min(codes.length, (4 - (codes.byteOffset % 4)) % 4);
  const words = new Uint32Array(codes.buffer, codes.byteOffset + start, (codes.length - start) >>> 2);
  let all = 0;
  for (let i = 0; i < words.length; i++) all |= words[i]!;
  all |= (all >>> 16) | (all >>> 8) | (all >>> 24);
  for (let i = 0; i < start; i++) all |= codes[i]!;
  for (let i = start + 4 * words.length; i < codes.length; i++) all |= codes[i]!;
  return all & 0xff;
}

/** A code that is too large would spill into its neighbour's bits. */
function checkCodes(codes: Uint8Array, highest: number, packing: Packing): void {
  if (highest === 255) return;
  if (bitsOfAll(codes) > highest) {
    const bad = codes.findIndex((code) => code > highest);
    throw new HqqError(
      'ERR_INVALID_ARGUMENT',
      `Expected codes for ${packing} to be at most ${highest}, got ${codes[bad]} at index ${bad}.`,
    );
  }
}

/**
 * The codes of a quantized tensor, one per byte, in the order of the weight matrix: row-major `[outFeatures, inFeatures]`.
 *
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_GROUP_SIZE`
 */
export function unpack(q: QuantizedTensorLike): OwnedUint8Array {
  refuseSurplus(arguments.length, 1, 'unpack(q)');
  const { geometry, format } = checkQuantized(q);
  const { rows, cols } = geometry;
  const codes = allocating(`the codes of ${q.shape[0]} x ${q.shape[1]} weights`, () => new Uint8Array(rows * cols));
  const threads = resolveThreads();
  runTaskSync(activeBackend(), 'unpack', grouped.packArgs({ rows, cols, format, codes, packed: q.packed, threads }));
  return codes;
}
