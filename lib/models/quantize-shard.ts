import type { Backend } from '../../binding.js';
import { groupedQuantizeArgs, nonFiniteError, type QuantSums, readStats } from '../compute/arguments.js';
import { runTask } from '../compute/run.js';
import type { CheckpointTensor } from '../containers/safetensors/checkpoint.js';
import type { SafetensorsWriter } from '../containers/safetensors/writer.js';
import { DTYPES, dtypeFromSafetensors } from '../matrix/dtype.js';
import { HqqError } from '../messages/errors.js';
import { plain, quote } from '../messages/text.js';
import { allFinite, bitsOf, bytesOf, type HalfFit, toHalf, widenBytes, worse } from '../schemes/hqq/half.js';
import { smallTensors } from '../schemes/hqq/state-dict.js';
import type { LayerPlan, ShardPlan } from './plan.js';
import { CHUNK_WEIGHTS, type Chunk, chunksOf, countOf, positionOf, type Range } from './stream/chunks.js';
import { pipelines, type Scratch } from './stream/pipeline.js';
import {
  type Counter,
  copyPiece,
  copyPieces,
  pieces,
  readRanges,
  type Stopwatch,
  writeRanges,
} from './stream/transfer.js';

/** What one pass over a shard needs. */
export interface ShardRun {
  readonly writer: SafetensorsWriter;
  readonly slots: readonly Scratch[];
  readonly backend: Backend;
  readonly threads: number;
  readonly counter: Counter;
  readonly stopwatch: Stopwatch;
  readonly signal: AbortSignal | undefined;
  /** Where float16 does not hold a layer: finish, so that all such layers are known, rather than fail. */
  readonly mayRepeat: boolean;
}

/** What one layer came to. */
export interface LayerResult {
  readonly layer: LayerPlan;
  readonly sums: QuantSums;
  readonly seconds: number;
  readonly fit: HalfFit;
}

type Job =
  | { readonly kind: 'chunk'; readonly state: LayerState; readonly index: number; readonly chunk: Chunk }
  | { readonly kind: 'bias'; readonly state: LayerState; readonly piece: Range }
  | { readonly kind: 'small'; readonly state: LayerState }
  | { readonly kind: 'copy'; readonly tensor: CheckpointTensor; readonly piece: Range };

/** What is known of a layer so far. */
interface LayerState {
  readonly layer: LayerPlan;
  readonly sums: QuantSums[];
  left: number;
  seconds: number;
  fit: HalfFit;
}

/** Quantizes what the shard says and copies the rest, either in the order of the input file. */
export async function quantizeShard(shard: ShardPlan, run: ShardRun): Promise<readonly LayerResult[]> {
  const states = new Map<CheckpointTensor, LayerState>();
  for (const layer of shard.layers) {
    states.set(layer.weight, { layer, sums: [], left: layer.shape[0] * layer.shape[1], seconds: 0, fit: 'holds' });
  }
  const work = (job: Job, slot: Scratch, signal: AbortSignal): Promise<void> => {
    if (job.kind === 'chunk') return quantizeChunk(job.state, job.index, job.chunk, run, slot, signal);
    if (job.kind === 'bias') return convertBias(job.state, job.piece, run, slot, signal);
    return job.kind === 'small' ? writeSmall(job.state, run) : copy(job.tensor, job.piece, run, slot, signal);
  };
  // Copying only waits for the disk, quantizing for the cores: side by side they take the time of the longer one.
  const [copySlot, ...slots] = run.slots;
  const lines = [
    { slots: [copySlot!], jobs: copyJobs(shard) },
    { slots, jobs: layerJobs(shard, states) },
  ];
  await pipelines<Job, Scratch>(lines, work, run.signal);
  return [...states.values()].map(({ layer, sums, seconds, fit }) => ({ layer, sums: addUp(sums), seconds, fit }));
}

const inFileOrder = (a: CheckpointTensor, b: CheckpointTensor) => a.entry.begin - b.entry.begin;

function* copyJobs({ copies }: ShardPlan): Generator<Job> {
  for (const tensor of [...copies].sort(inFileOrder)) {
    for (const piece of copyPieces(tensor)) yield { kind: 'copy', tensor, piece };
  }
}

function* layerJobs({ layers }: ShardPlan, states: ReadonlyMap<CheckpointTensor, LayerState>): Generator<Job> {
  for (const tensor of layers.map(({ weight }) => weight).sort(inFileOrder)) {
    const state = states.get(tensor)!;
    const { geometry, config, format, shape, bias } = state.layer;
    yield { kind: 'small', state };
    if (bias) for (const piece of pieces(shape[0], CHUNK_WEIGHTS)) yield { kind: 'bias', state, piece };
    let index = 0;
    for (const chunk of chunksOf({ geometry, axis: config.axis, format, config })) {
      yield { kind: 'chunk', state, index: index++, chunk };
    }
  }
}

async function quantizeChunk(
  state: LayerState,
  index: number,
  chunk: Chunk,
  run: ShardRun,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  const { layer } = state;
  const { weight, config, format, metaDtype, module } = layer;
  const { rows, cols, step } = chunk;
  const dtype = dtypeFromSafetensors(weight.entry.dtype)!;
  const bytes = slot.take('weights', Uint8Array, rows * cols * DTYPES[dtype].bytes);
  await readRanges(weight, chunk.weights, DTYPES[dtype].bytes, bytes, signal);

  const weights = bitsOf(bytes, dtype);
  const words = step * cols;
  const packed =
    format.wordBytes === 1 ? slot.take('packed', Uint8Array, words) : slot.take('packed', Int32Array, words);
  const groups = countOf(chunk.groups);
  const scale = slot.take('scale', Float32Array, groups);
  const zero = slot.take('zero', Float32Array, groups);
  const stats = new Float64Array(5);
  const args = groupedQuantizeArgs({
    ...{ rows, cols, step, format, config, weights, dtype, metaDtype, packed, scale, zero, stats },
    ...{ axis: config.axis, threads: run.threads },
  });
  state.seconds += await run.stopwatch.time(() => runTask(run.backend, 'quantize', args, { signal }));
  const sums = readStats(stats);
  if (sums.badIndex >= 0) {
    const position = positionOf(chunk.weights, sums.badIndex);
    const name = `${plain(weight.entry.name)} of ${plain(weight.file.path)}`;
    const error = nonFiniteError(name, weights, dtype, sums.badIndex, position, layer.shape[1]);
    throw new HqqError(
      error.code,
      `${error.message} No scale fits it: repair the file, or leave the tensor as it is (exclude, --exclude).`,
    );
  }
  state.sums[index] = sums;

  const { writer } = run;
  const writing = writeRanges(writer, `${module}.W_q`, chunk.packed, format.wordBytes, bytesOf(packed), signal);
  const meta = (kind: 'scale' | 'zero', values: Float32Array) => {
    const stored = storedMeta(state, kind, values, slot, run.mayRepeat, kind === 'zero' ? scale : undefined);
    return writeRanges(writer, `${module}.${kind}`, chunk.groups, DTYPES[metaDtype].bytes, bytesOf(stored), signal);
  };
  await settle([writing, attempt(() => meta('scale', scale)), attempt(() => meta('zero', zero))]);
  state.left -= rows * cols;
  run.counter.add(weight.entry.name, rows * cols, state.left === 0);
}

/** Scales, zeros or a bias as they are stored; notes how well float16 holds them. */
function storedMeta(
  state: LayerState,
  kind: 'scale' | 'zero' | 'bias',
  values: Float32Array,
  slot: Scratch,
  mayRepeat: boolean,
  scales?: Float32Array,
): Float32Array | Uint16Array {
  const { layer } = state;
  const name = () => quote(`${layer.module}.${kind}`);
  if (layer.metaDtype === 'float32') {
    if (kind === 'bias' || allFinite(values)) return values;
    const message = `Expected the groups of ${quote(layer.weight.entry.name)} to span less than float32 can hold`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, but a ${kind} would be infinite. Exclude it.`);
  }
  const half = slot.take(`half ${kind}`, Uint16Array, values.length);
  const fit = toHalf(values, kind, half, scales);
  if (fit === 'overflows' && !mayRepeat) {
    const bad = values.find((value) => !Number.isFinite(value));
    const fault = bad === undefined ? 'overflows' : `is ${bad}`;
    const message = `Expected ${name()} to fit into float16, but a value of it ${fault}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Use metaDtype (--meta-dtype) auto or float32.`);
  }
  state.fit = worse(state.fit, fit);
  return half;
}

async function convertBias(
  state: LayerState,
  piece: Range,
  run: ShardRun,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  const { bias, metaDtype } = state.layer;
  const { entry } = bias!;
  const dtype = dtypeFromSafetensors(entry.dtype)!;
  const bytes = slot.take('weights', Uint8Array, piece.count * DTYPES[dtype].bytes);
  await readRanges(bias!, [piece], DTYPES[dtype].bytes, bytes, signal);
  let stored: ArrayBufferView = bytes;
  if (dtype !== metaDtype) {
    const values = slot.take('bias', Float32Array, piece.count);
    widenBytes(bytes, dtype, values);
    stored = storedMeta(state, 'bias', values, slot, run.mayRepeat);
  }
  await writeRanges(run.writer, entry.name, [piece], DTYPES[metaDtype].bytes, bytesOf(stored), signal);
}

async function writeSmall({ layer }: LayerState, { writer }: ShardRun): Promise<void> {
  await settle(smallTensors(layer).map(({ name, bytes }) => writer.write(name, 0, bytes)));
}

async function copy(
  tensor: CheckpointTensor,
  piece: Range,
  run: ShardRun,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  const { name, begin, end } = tensor.entry;
  await copyPiece(tensor, piece, run.writer, slot, signal);
  run.counter.add(name, 0, piece.at + piece.count === end - begin);
}

function addUp(parts: readonly QuantSums[]): QuantSums {
  return {
    absError: parts.reduce((sum, part) => sum + part.absError, 0),
    squaredError: parts.reduce((sum, part) => sum + part.squaredError, 0),
    squaredWeight: parts.reduce((sum, part) => sum + part.squaredWeight, 0),
    iterations: parts.reduce((most, part) => Math.max(most, part.iterations), 0),
    badIndex: -1,
  };
}

/** Waits for all, then throws what the first failed one threw: nobody may read a buffer that the next job fills. */
async function settle(tasks: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(tasks)).find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
}

/** A throw before the first await becomes a rejection. */
async function attempt(task: () => Promise<void>): Promise<void> {
  await task();
}
