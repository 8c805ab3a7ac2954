import type { Backend } from '../../binding.js';
import { activeBackend } from '../backend/index.js';
import { relativeError } from '../compute/arguments.js';
import { resolveThreads, runTask } from '../compute/run.js';
import { Checkpoint, type CheckpointTensor } from '../containers/safetensors/checkpoint.js';
import { DTYPES, type DType, dtypeFromSafetensors } from '../matrix/dtype.js';
import { HqqError } from '../messages/errors.js';
import { plain, quote, quoteSome } from '../messages/text.js';
import { bitsOf, narrowBytes, widenBytes } from '../schemes/hqq/half.js';
import { type ReadLayer, readLayers } from '../schemes/hqq/read-layers.js';
import { type ConversionRun, checkConversion, checkPath } from './options.js';
import type { CompareReport, TensorComparison } from './report.js';
import { CHUNK_WEIGHTS, type Range } from './stream/chunks.js';
import { checkLayer, dequantizeChunk, layerChunks } from './stream/layer-chunks.js';
import { pipeline, type Scratch } from './stream/pipeline.js';
import { Counter, makeSlots, pieces, readRanges } from './stream/transfer.js';

/** How `compareModels` runs. */
export interface CompareOptions extends ConversionRun {
  /**
   * Threads that compute, 1 to 256.
   *
   * @default HQQ_THREADS, else the parallelism that the system offers
   */
  readonly threads?: number | undefined;
}

/** One tensor that both have, under the name of the original. */
interface Pair {
  readonly name: string;
  readonly a: CheckpointTensor;
  readonly b: CheckpointTensor | ReadLayer;
  readonly totals: { weights: number; abs: number; squared: number; squaredA: number; largest: number };
  /** Stored the same, as far as has been seen: bit for bit, or rounded to the type that `b` has. */
  same: boolean;
  left: number;
}

/** Bytes that are compared at once where nothing is computed. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** As entry.ts says, through which the package exports it. */
export async function compareModels(
  original: string,
  quantized: string,
  options: CompareOptions = {},
): Promise<CompareReport> {
  checkPath(original, 'the original');
  checkPath(quantized, 'the quantized model');
  checkConversion(options);
  const { signal, onProgress } = options;
  signal?.throwIfAborted();
  const open: Checkpoint[] = [];
  try {
    const a = await Checkpoint.open(original);
    open.push(a);
    const b = await Checkpoint.open(quantized);
    open.push(b);
    const layers = await readLayers(b, signal);
    for (const layer of layers.values()) checkLayer(layer);
    rejectSwapped(a, layers.size > 0);
    const { pairs, lone } = pairUp(a, b, layers);
    const run = { backend: activeBackend(), threads: resolveThreads(options.threads) };
    const weights = pairs.reduce((sum, pair) => sum + (isNumeric(pair) ? pair.left : 0), 0);
    const counter = new Counter(onProgress, weights, pairs.length);
    await pipeline(
      makeSlots(),
      jobsOf(pairs),
      async (job, slot, stop) => {
        await job.run({ ...run, slot, signal: stop });
        job.pair.left -= job.count;
        counter.add(job.pair.name, isNumeric(job.pair) ? job.count : 0, job.pair.left === 0);
      },
      signal,
    );
    return summarize(original, quantized, pairs, lone);
  } finally {
    await Promise.all(open.map((checkpoint) => checkpoint.close()));
  }
}

function rejectSwapped(a: Checkpoint, quantized: boolean): void {
  if (![...a.tensors.keys()].some((name) => name.endsWith('.W_q'))) return;
  const advice = quantized ? 'Pass the model that it was made from' : 'Pass the original first';
  const message = `Expected the first model to be the original, but ${plain(a.path)} is quantized. ${advice}.`;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
}

interface Pairs {
  readonly pairs: readonly Pair[];
  /** Names that only one of the two has. */
  readonly lone: readonly string[];
}

function pairUp(a: Checkpoint, b: Checkpoint, layers: ReadonlyMap<string, ReadLayer>): Pairs {
  const theirs = new Map<string, CheckpointTensor | ReadLayer>();
  const keys = new Set([...layers.values()].flatMap((layer) => layer.keys));
  for (const [name, tensor] of b.tensors) {
    const layer = name.endsWith('.W_q') ? layers.get(name.slice(0, -4)) : undefined;
    if (layer) theirs.set(`${layer.module}.weight`, layer);
    else if (!keys.has(tensor)) theirs.set(name, tensor);
  }
  const pairs: Pair[] = [];
  for (const [name, tensor] of a.tensors) {
    const other = theirs.get(name);
    if (!other) continue;
    const [shape, otherShape] = [tensor.entry.shape, shapeOf(other)];
    if (shape.join() !== otherShape.join()) {
      const sizes = `[${shape.join(', ')}] in ${plain(a.path)} and [${otherShape.join(', ')}] in ${plain(b.path)}`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `Expected two forms of one model, but ${quote(name)} is ${sizes}.`);
    }
    if (isLayer(other) && dtypeFromSafetensors(tensor.entry.dtype) === undefined) {
      const message = `Expected ${quote(name)} of the original to be floating-point, got ${tensor.entry.dtype}.`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
    }
    const totals = { weights: 0, abs: 0, squared: 0, squaredA: 0, largest: 0 };
    const pair = { name, a: tensor, b: other, totals, same: true, left: 0 };
    pair.left = isNumeric(pair)
      ? shape.reduce((product, size) => product * size, 1)
      : tensor.entry.end - tensor.entry.begin;
    pairs.push(pair);
  }
  if (pairs.length === 0) {
    const [ours, others] = [[...a.tensors.keys()], [...theirs.keys()]];
    const message = `Expected two forms of one model, but ${plain(a.path)} and ${plain(b.path)} have no tensor name in common`;
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${message}: ${quoteSome(ours, 2)} here, ${quoteSome(others, 2)} there.`,
    );
  }
  const onlyA = [...a.tensors.keys()].filter((name) => !theirs.has(name));
  const onlyB = [...theirs.keys()].filter((name) => !a.tensors.has(name));
  return { pairs, lone: [...onlyA, ...onlyB] };
}

interface JobRun {
  readonly backend: Backend;
  readonly threads: number;
  readonly slot: Scratch;
  readonly signal: AbortSignal;
}

interface Job {
  readonly pair: Pair;
  /** Elements, or bytes where nothing is computed. */
  readonly count: number;
  readonly run: (run: JobRun) => Promise<void>;
}

function* jobsOf(pairs: readonly Pair[]): Generator<Job> {
  for (const pair of pairs) {
    const { b } = pair;
    if (isLayer(b)) {
      for (const chunk of layerChunks(b)) {
        const run = async (how: JobRun) => {
          const weights = await dequantizeChunk(b, chunk, 'float32', how);
          await measure(pair, chunk.weights, weights, 'float32', how);
        };
        yield { pair, count: chunk.rows * chunk.cols, run };
      }
    } else if (isNumeric(pair)) {
      const dtype = dtypeFromSafetensors(b.entry.dtype)!;
      for (const piece of pieces(pair.left, CHUNK_WEIGHTS)) {
        const run = async (how: JobRun) => {
          const bytes = how.slot.take('weights', Uint8Array, piece.count * DTYPES[dtype].bytes);
          await readRanges(b, [piece], DTYPES[dtype].bytes, bytes, how.signal);
          await measure(pair, [piece], bytes, dtype, how);
        };
        yield { pair, count: piece.count, run };
      }
    } else if (pair.a.entry.dtype !== b.entry.dtype) {
      pair.same = false;
    } else {
      for (const piece of pieces(pair.left, PIECE_BYTES)) {
        const run = async ({ slot, signal }: JobRun) => {
          const [x, y] = ['x', 'y'].map((name) => slot.take(name, Uint8Array, piece.count)) as [Uint8Array, Uint8Array];
          await Promise.all([readRanges(pair.a, [piece], 1, x, signal), readRanges(b, [piece], 1, y, signal)]);
          if (Buffer.compare(x, y) !== 0) pair.same = false;
        };
        yield { pair, count: piece.count, run };
      }
    }
  }
}

/** Adds the distance between ranges of `a` and the same elements of `b`, which are given. */
async function measure(pair: Pair, ranges: readonly Range[], b: Uint8Array, bDtype: DType, run: JobRun): Promise<void> {
  const { slot, signal, threads } = run;
  const aDtype = dtypeFromSafetensors(pair.a.entry.dtype)!;
  const count = b.byteLength / DTYPES[bDtype].bytes;
  const a = slot.take('original', Uint8Array, count * DTYPES[aDtype].bytes);
  await readRanges(pair.a, ranges, DTYPES[aDtype].bytes, a, signal);
  if (pair.same && !isLayer(pair.b)) pair.same = isRounded(a, aDtype, b, bDtype, slot);
  const stats = new Float64Array(4);
  const ids = { aDtype: DTYPES[aDtype].id, bDtype: DTYPES[bDtype].id };
  await runTask(
    run.backend,
    'distance',
    { a: bitsOf(a, aDtype), b: bitsOf(b, bDtype), ...ids, stats, threads },
    { signal },
  );
  const [abs, squared, squaredA, largest] = stats as unknown as [number, number, number, number];
  const { totals } = pair;
  totals.weights += count;
  totals.abs += abs;
  totals.squared += squared;
  totals.squaredA += squaredA;
  totals.largest = Math.max(totals.largest, largest);
}

/** Whether `b` is `a`, rounded to the type of `b`. */
function isRounded(a: Uint8Array, aDtype: DType, b: Uint8Array, bDtype: DType, slot: Scratch): boolean {
  if (aDtype === bDtype) return Buffer.compare(a, b) === 0;
  const values = slot.take('values', Float32Array, a.byteLength / DTYPES[aDtype].bytes);
  widenBytes(a, aDtype, values);
  const rounded = slot.take('rounded', Uint8Array, b.byteLength);
  narrowBytes(values, bDtype, rounded);
  return Buffer.compare(rounded, b) === 0;
}

function isLayer(b: CheckpointTensor | ReadLayer): b is ReadLayer {
  return 'packed' in b;
}

/** Both sides are numbers that the backend can compare. */
function isNumeric({ a, b }: Pick<Pair, 'a' | 'b'>): boolean {
  return (
    dtypeFromSafetensors(a.entry.dtype) !== undefined &&
    (isLayer(b) || dtypeFromSafetensors(b.entry.dtype) !== undefined)
  );
}

function shapeOf(b: CheckpointTensor | ReadLayer): readonly number[] {
  return isLayer(b) ? b.shape : b.entry.shape;
}

function summarize(
  original: string,
  quantized: string,
  pairs: readonly Pair[],
  lone: readonly string[],
): CompareReport {
  // Vectors that differ (norms, biases) are named; of matrices it matters by how much.
  const measured = pairs.filter(
    (pair) => isLayer(pair.b) || (!pair.same && isNumeric(pair) && shapeOf(pair.b).length >= 2),
  );
  const shown = new Set(measured);
  const rest = pairs.filter((pair) => !shown.has(pair));
  const different = rest.filter(({ same }) => !same).map(({ name }) => name);
  const sum = (part: (totals: Pair['totals']) => number) =>
    measured.reduce((total, { totals }) => total + part(totals), 0);
  const weights = sum((totals) => totals.weights);
  return {
    original,
    quantized,
    tensors: measured.map(compareOne),
    dense: { equal: rest.length - different.length, different: [...different, ...lone] },
    totals: {
      weights,
      meanAbsError: weights === 0 ? 0 : sum((totals) => totals.abs) / weights,
      relativeError: relativeError(
        sum((totals) => totals.squared),
        sum((totals) => totals.squaredA),
      ),
    },
  };
}

function compareOne({ name, b, totals }: Pair): TensorComparison {
  const storage = isLayer(b)
    ? `${b.nbits}-bit, group ${b.groupSize}, axis ${b.axis}`
    : dtypeFromSafetensors(b.entry.dtype)!;
  return {
    name,
    shape: shapeOf(b),
    storage,
    meanAbsError: totals.abs / totals.weights,
    maxAbsError: totals.largest,
    relativeError: relativeError(totals.squared, totals.squaredA),
  };
}
