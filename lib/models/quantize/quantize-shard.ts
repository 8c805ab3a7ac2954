import type { Backend } from '../../../binding.js';
import { nonFiniteError, type QuantSums } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import { runTask, runTaskSync } from '../../compute/run.js';
import {
  type Envelope,
  type LinearSite,
  pathOfFile,
  type TensorEntry,
  type TensorSink,
  type TensorSource,
} from '../../containers/container.js';
import { pieces, positionOf, type Range, writeRanges } from '../../containers/ranges.js';
import { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
import { storedPosition, storedShape } from '../../containers/transpose.js';
import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import { CHUNK_WEIGHTS } from '../../schemes/chunks.js';
import type { Chunk, PlannedLayer, Scheme, Survey, WholeTensor, WorkRun } from '../../schemes/scheme.js';
import { Deferred } from '../stream/deferred.js';
import { pipelines } from '../stream/pipeline.js';
import { type Counter, copyPiece, copyPieces, type Stopwatch } from '../stream/transfer.js';
import { addSums } from './add-sums.js';
import { convertBias } from './convert-bias.js';
import type { ShardPlan } from './plan.js';
import { type ReadWeights, readWeights } from './read-weights.js';
import { inWindows, type Rooms, type Window } from './windows.js';

/** What all work on the shards of a model shares. */
export interface ShardRun {
  readonly source: TensorSource;
  /** What will surround the output's tensors. */
  readonly envelope: Envelope;
  readonly scheme: Scheme;
  readonly slots: readonly Scratch[];
  /** For weights that lie `[in, out]`. Shards are written one after the other, and need no more than one of them does. */
  readonly rooms: Rooms;
  readonly backend: Backend;
  readonly threads: number;
  readonly counter: Counter;
  readonly stopwatch: Stopwatch;
  readonly signal: AbortSignal | undefined;
  readonly importance: Importance | undefined;
}

/** Weights that are computed sooner than another thread takes them up: models may have thousands of such layers. */
const FEW_WEIGHTS = 4096;

/** How much the errors of each input feature of a layer count, `[inFeatures]`, by the layer's name in files. Others have none. */
export type Importance = ReadonlyMap<string, Float32Array>;

/** What one layer came to. Plain data. */
export interface LayerResult {
  readonly layer: PlannedLayer;
  readonly sums: QuantSums;
  readonly seconds: number;
}

type Job =
  | ChunkJob
  | { readonly kind: 'window'; readonly window: Window }
  | { readonly kind: 'bias'; readonly state: LayerState; readonly bias: TensorEntry; readonly piece: Range }
  | { readonly kind: 'constants'; readonly state: LayerState }
  | { readonly kind: 'copy'; readonly entry: TensorEntry; readonly piece: Range };

interface ChunkJob {
  /** To be looked at for a survey, encoded, or one after the other. */
  readonly kind: 'look' | 'encode' | 'both';
  readonly state: LayerState;
  readonly index: number;
  readonly chunk: Chunk;
  /** What its weights are turned out of; absent: they are read. */
  readonly window?: Window | undefined;
}

/** What is known of a layer so far. */
interface LayerState {
  readonly layer: PlannedLayer;
  readonly sums: QuantSums[];
  /** Of a layer whose chunks must all be looked at first: from its first chunk to its last. */
  survey: Survey | undefined;
  /** Gives the survey's memory back. */
  done?: () => void;
  /** Done when all its chunks were looked at and its survey is settled. */
  readonly settled: Deferred;
  /** Weights that are not looked at yet, and not encoded. */
  unlooked: number;
  left: number;
  seconds: number;
}

/** Quantizes what the shard says and copies the rest, either in the order of the input file. */
export async function quantizeShard(
  { layers, copies }: ShardPlan,
  sink: TensorSink,
  run: ShardRun,
): Promise<readonly LayerResult[]> {
  const states = layers.map((layer): LayerState => {
    const [rows, cols] = layer.site.shape;
    const count = rows * cols;
    return { layer, sums: [], survey: undefined, settled: new Deferred(), unlooked: count, left: count, seconds: 0 };
  });
  const work = (job: Job, slot: Scratch, signal: AbortSignal): Promise<void> => {
    if ('chunk' in job)
      return quantizeChunk(job, sink, run, slot, signal)
        .catch((error: unknown) => {
          if (job.kind !== 'encode') job.state.settled.reject(error); // nobody waits for what will not be
          throw error;
        })
        .finally(() => job.window?.end());
    if (job.kind === 'window') return job.window.read(run.source, slot, signal);
    if (job.kind === 'bias') return convertBias(job.state.layer, job.bias, job.piece, sink, run, slot, signal);
    if (job.kind === 'constants') return writeWhole(run.scheme.constants(job.state.layer), sink);
    return copy(job.entry, job.piece, sink, run, slot, signal);
  };
  // Copying only waits for the disk, quantizing for the cores: side by side they take the time of the longer one.
  const [copySlot, ...slots] = run.slots;
  const entries = copies.map((name) => run.source.entries.get(name)!).sort(inFileOrder);
  const lines = [
    { slots: [copySlot!], jobs: copyJobs(entries) },
    {
      slots,
      jobs: layerJobs(
        [...states].sort((a, b) => inFileOrder(a.layer.site.weight, b.layer.site.weight)),
        run,
      ),
    },
  ];
  await pipelines<Job, Scratch>(lines, work, run.signal);
  return states.map(({ layer, sums, seconds }) => ({ layer, sums: addSums(sums), seconds }));
}

const inFileOrder = (a: TensorEntry, b: TensorEntry) => a.begin - b.begin;

function* copyJobs(entries: readonly TensorEntry[]): Generator<Job> {
  for (const entry of entries) for (const piece of copyPieces(entry)) yield { kind: 'copy', entry, piece };
}

function* layerJobs(states: readonly LayerState[], { scheme, rooms }: ShardRun): Generator<Job> {
  let behind: Iterable<Job> = [];
  // Of layers that need it no more: what is given back to the system comes back late, and adds up. What looks write is that of one
  // layer at a time: the next one's wait till it is settled, which is when all of it was looked at.
  const looks = new Scratch();
  const kept: Scratch[] = [];
  let free: Promise<void> | undefined;
  for (const state of states) {
    const { site, form } = state.layer;
    const { bias, shape } = site;
    yield { kind: 'constants', state };
    if (bias) for (const piece of pieces(shape[0], CHUNK_WEIGHTS)) yield { kind: 'bias', state, bias, piece };
    const memory = { looks, free, kept: kept.pop() ?? new Scratch() };
    state.survey = scheme.survey?.(state.layer, memory);
    state.done = () => void kept.push(memory.kept);
    if (state.survey === undefined) {
      let index = 0;
      for (const { window, chunks } of inWindows(site, scheme.chunks(form), rooms)) {
        const first = index;
        index += chunks.length;
        const jobs = chunks.map((chunk, i): ChunkJob => ({ kind: 'encode', state, index: first + i, chunk, window }));
        if (window === undefined) {
          yield* jobs;
          continue;
        }
        yield { kind: 'window', window }; // while those of the one before are encoded
        yield* behind;
        behind = jobs;
      }
      continue;
    }
    free = state.settled.promise;
    const [, second] = scheme.chunks(form);
    if (second === undefined) {
      yield* chunkJobs('both', state, scheme); // read once
      continue;
    }
    // The layer before is encoded when all of this one is being looked at: nobody waits for a look.
    yield* chunkJobs('look', state, scheme);
    yield* behind;
    behind = chunkJobs('encode', state, scheme);
  }
  yield* behind;
}

function* chunkJobs(kind: ChunkJob['kind'], state: LayerState, scheme: Scheme): Generator<ChunkJob> {
  let index = 0;
  for (const chunk of scheme.chunks(state.layer.form)) yield { kind, state, index: index++, chunk };
}

async function quantizeChunk(
  { kind, state, index, chunk, window }: ChunkJob,
  sink: TensorSink,
  run: ShardRun,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  const { layer, survey } = state;
  const { site } = layer;
  const computeOf =
    (weights: number): WorkRun['compute'] =>
    async (operation, args) => {
      const runIt = weights <= FEW_WEIGHTS ? runTaskSync : runTask;
      state.seconds += await run.stopwatch.time(async () => runIt(run.backend, operation, args, { signal }));
    };
  const compute = computeOf(chunk.count);
  const importance = run.importance?.get(site.name);
  const grid = await run.source.grid?.(site.weight, signal);
  const chosen = await run.source.chosen?.(site.weight, signal);
  const work: WorkRun = { slot, threads: run.threads, signal, importance, grid, chosen, compute };
  const fill =
    window && ((ranges: readonly Range[], into: Uint8Array) => window.fill(ranges, into, { ...run, signal }));
  const read = () => readWeights(run, layer, chunk, slot, signal, fill);
  const look = async (): Promise<ReadWeights> => {
    const weights = await read();
    const { badIndex } = await survey!.look(chunk, weights.bytes, work);
    if (badIndex >= 0) throw badWeight(run.source, site, chunk, weights.bytes, badIndex);
    run.counter.add(site.weight.name, 0, false); // a sign of life
    state.unlooked -= chunk.count;
    if (state.unlooked === 0) {
      const whole = { ...work, compute: computeOf(site.shape[0] * site.shape[1]) }; // settling is work on all of the layer
      await writeWhole(await survey!.settle(whole), sink);
      state.settled.resolve();
    }
    return weights;
  };
  const looked = kind === 'encode' ? undefined : await look();
  if (kind === 'look') return;
  if (survey !== undefined) await state.settled.promise;
  const { bytes, pruned } = looked ?? (await read());
  const { pieces: parts, sums } = await (survey === undefined
    ? run.scheme.encode(layer, chunk, bytes, work)
    : survey.encode(chunk, bytes, work));
  if (sums.badIndex >= 0) throw badWeight(run.source, site, chunk, bytes, sums.badIndex);
  state.sums[index] = pruned === undefined ? sums : addSums([sums, pruned]);
  await settle(parts.map((part) => writeRanges(sink, part.tensor, part.ranges, part.elementBytes, part.bytes, signal)));
  const count = chunk.count;
  state.left -= count;
  if (state.left === 0) {
    state.survey = undefined;
    state.done?.();
  }
  run.counter.add(site.weight.name, count, state.left === 0);
}

/** The error for a weight that is not finite: element `index` of a chunk. */
function badWeight(source: TensorSource, site: LinearSite, chunk: Chunk, bytes: Uint8Array, index: number): HqqError {
  const { weight } = site;
  const dtype = numbersOf(weight.type)!;
  const position = storedPosition(site, positionOf(chunk.weights, index));
  const name = `${plain(weight.name)} of ${plain(pathOfFile(source, weight))}`;
  const { code, message } = nonFiniteError(name, bitsOf(bytes, dtype), dtype, index, position, storedShape(site)[1]);
  const rounded = weight.type.rounded === undefined ? '' : ' (Numbers beyond float32 count as infinite.)';
  return new HqqError(
    code,
    `${message}${rounded} No scale fits it: repair the file, or leave the tensor as it is (exclude, --exclude).`,
  );
}

async function writeWhole(tensors: readonly WholeTensor[], sink: TensorSink): Promise<void> {
  await settle(tensors.map(({ name, bytes }) => sink.write(name, 0, bytes)));
}

async function copy(
  entry: TensorEntry,
  piece: Range,
  sink: TensorSink,
  run: ShardRun,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  await copyPiece(run.source, entry, piece, sink, slot, signal);
  run.counter.add(entry.name, 0, piece.at + piece.count === entry.end - entry.begin);
}

/** Waits for all, then throws what the first failed one threw: nobody may read a buffer that the next job fills. */
async function settle(tasks: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(tasks)).find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
}
