import { activeBackend } from '../backend/index.js';
import { relativeError } from '../compute/arguments.js';
import { bitsOf } from '../compute/floats.js';
import { widenBytesLater } from '../compute/later.js';
import { resolveThreads, runTask } from '../compute/run.js';
import type { TensorEntry, TensorSource } from '../containers/container.js';
import { openSource, sourceAs } from '../containers/list.js';
import { pieces, type Range, readRanges } from '../containers/ranges.js';
import { rounding } from '../containers/rounding.js';
import { numbersOf } from '../containers/stored-types.js';
import { readMatrix } from '../containers/transpose.js';
import { type FilePath, pathOf } from '../files/path.js';
import { DTYPES, type DType } from '../matrix/dtype.js';
import { HqqError } from '../messages/errors.js';
import { plain, quoteSome } from '../messages/text.js';
import { CHUNK_WEIGHTS } from '../schemes/chunks.js';
import type { WorkRun } from '../schemes/scheme.js';
import { findLayers, isLayer, schemeOf, tracesOf } from './layers.js';
import { type Likeness, lessLike, likenessOf } from './likeness.js';
import { type ConversionRun, checkConversion } from './options.js';
import { isNumeric, type Pair, pairUp } from './pairs.js';
import type { CompareReport, TensorComparison } from './report.js';
import { pipeline } from './stream/pipeline.js';
import { Counter, makeSlots } from './stream/transfer.js';

/** How `compareModels` runs. */
export interface CompareOptions extends ConversionRun {
  /**
   * Threads that compute, 1 to 256.
   *
   * @default HQQ_THREADS, else the parallelism that the system offers
   */
  readonly threads?: number | undefined;
}

/** Numbers of a tensor that are compared at once where nothing is decoded: each is in memory four times, as it is stored and as it is shown. */
const PIECE_NUMBERS = CHUNK_WEIGHTS / 4;

/** Bytes that are compared at once where nothing is computed. */
const PIECE_BYTES = 1024 * 1024;

/** Sees what is compared, as it is read. */
export interface Onlooker {
  /** Every tensor that both have, before the first number of any is read. */
  pairs(pairs: readonly Pair[]): void;
  /** Numbers of both, of ranges of the tensor, one range after the other; they are the caller's until this returns. */
  numbers(pair: Pair, ranges: readonly Range[], original: Float32Array, other: Float32Array): void;
  /** Nothing more comes of a tensor. */
  done(pair: Pair): void;
}

/** As entry.ts says, through which the package exports it; an onlooker is for the command line. */
export async function compareModels(
  first: FilePath,
  second: FilePath,
  options: CompareOptions = {},
  onlooker?: Onlooker,
): Promise<CompareReport> {
  const original = pathOf(first, 'the original');
  const quantized = pathOf(second, 'the quantized model');
  checkConversion(options);
  const { signal, onProgress } = options;
  signal?.throwIfAborted();
  const open: TensorSource[] = [];
  try {
    const first = await openSource(original);
    open.push(first);
    const b = await openSource(quantized);
    open.push(b);
    const made = new Set(b.files.flatMap(({ prefix }) => prefix ?? []));
    const forms = b.widths && first.widths === undefined ? first.forms?.(b.widths, made).source : undefined;
    const a = await sourceAs(forms ?? first, b.container, true); // whose names are those of the other, then
    const layers = await findLayers(b, signal);
    for (const layer of layers) schemeOf(layer).storedChunks(layer); // refuses what cannot be read in parts
    rejectSwapped(a, layers.length > 0);
    for (const source of layers.length > 0 ? [a] : [a, b]) rejectForeign(source);
    const { pairs, lone } = await pairUp(a, b, layers);
    onlooker?.pairs(pairs);
    const [backend, threads] = [activeBackend(), resolveThreads(options.threads)];
    const weights = pairs.reduce((sum, pair) => sum + (isNumeric(pair) ? pair.left : 0), 0);
    const counter = new Counter(onProgress, weights, pairs.filter(isRead).length);
    await pipeline(
      makeSlots(-1), // nothing is written
      jobsOf(pairs),
      async (job, slot, stop) => {
        const compute: WorkRun['compute'] = (operation, args) => runTask(backend, operation, args, { signal: stop });
        await job.run({ sources: { a, b }, threads, slot, signal: stop, compute, onlooker });
        job.pair.left -= job.count;
        if (job.pair.left === 0) onlooker?.done(job.pair);
        counter.add(job.pair.name, isNumeric(job.pair) ? job.count : 0, job.pair.left === 0);
      },
      signal,
    );
    return { ...summarize(original, quantized, pairs, lone), notes: notesOf(b) };
  } finally {
    await Promise.all(open.map((source) => source.close()));
  }
}

/** What of a folder was left out, which a report looks the same without. */
function notesOf({ path, unread = [] }: TensorSource): readonly string[] {
  if (unread.length === 0) return [];
  const which = `Only the float models of ${plain(path)} were compared, not ${quoteSome(unread)}`;
  return [`${which}: pass the file of a form, and that of the original, to compare it.`];
}

function rejectSwapped(a: TensorSource, quantized: boolean): void {
  if (tracesOf(a) === undefined) return;
  const advice = quantized
    ? 'Two quantized models cannot be compared with each other: pass the model that this was made from'
    : 'What was made of a quantized model cannot be compared with it: pass the original first, then one of the two';
  const message = `Expected the first model to be the original, but ${plain(a.path)} is quantized. ${advice}.`;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
}

/** Refuses what holds numbers in a form that is not read: they would be compared as if there were none. */
function rejectForeign({ path, entries, envelope }: TensorSource): void {
  const obstacle = envelope.obstacle(entries);
  if (obstacle === undefined || obstacle.kind === 'declared') return;
  const message = `Expected models of floats, or what hqq has quantized, to compare, but ${plain(path)} ${obstacle.what}.`;
  const advice =
    obstacle.kind === 'adapter'
      ? obstacle.advice.replace('quantize that', 'compare that')
      : 'Give it back its floats with the tool that made it, and compare these.';
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message} ${advice}`);
}

interface JobRun extends WorkRun {
  readonly sources: Sources;
  readonly onlooker: Onlooker | undefined;
}

/** The original and what it is compared with. */
interface Sources {
  readonly a: TensorSource;
  readonly b: TensorSource;
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
      for (const chunk of schemeOf(b).storedChunks(b)) {
        const run = async (how: JobRun) => {
          const weights = await schemeOf(b).decode(how.sources.b, b, chunk, 'float32', how);
          await measure(pair, chunk.weights, weights, 'float32', how);
        };
        yield { pair, count: chunk.count, run };
      }
    } else if (isNumeric(pair)) {
      const dtype = b.type.float!;
      for (const piece of pieces(pair.left, PIECE_NUMBERS)) {
        const run = async (how: JobRun) => {
          const bytes = how.slot.take('weights', Uint8Array, piece.count * DTYPES[dtype].bytes);
          await readRanges(how.sources.b, b, [piece], DTYPES[dtype].bytes, bytes, how.slot, how.signal);
          await measure(pair, [piece], bytes, dtype, how);
        };
        yield { pair, count: piece.count, run };
      }
    } else if (!isRead(pair)) {
      if (pair.a.type.name !== b.type.name) pair.likeness = 'different';
    } else {
      for (const piece of pieces(pair.left, PIECE_BYTES)) {
        const run = async ({ sources, slot, signal }: JobRun) => {
          const [x, y] = ['x', 'y'].map((name) => slot.take(name, Uint8Array, piece.count)) as [Uint8Array, Uint8Array];
          await Promise.all([
            readRanges(sources.a, pair.a, [piece], 1, x, slot.part('x'), signal),
            readRanges(sources.b, b, [piece], 1, y, slot.part('y'), signal),
          ]);
          if (Buffer.compare(x, y) !== 0) pair.likeness = 'different';
        };
        yield { pair, count: piece.count, run };
      }
    }
  }
}

/** Adds the distance between ranges of `a` and the same elements of `b`, which are given. */
async function measure(pair: Pair, ranges: readonly Range[], b: Uint8Array, bDtype: DType, run: JobRun): Promise<void> {
  const { sources, slot, signal, threads } = run;
  const aDtype = numbersOf(pair.a.type)!;
  const count = b.byteLength / DTYPES[bDtype].bytes;
  const a = slot.take('original', Uint8Array, count * DTYPES[aDtype].bytes);
  const lower = (likeness: Likeness) => {
    pair.likeness = lessLike(pair.likeness, likeness);
  };
  const source = rounding(sources.a, (_entry, { overflows }) => lower(overflows > 0 ? 'different' : 'rounded'));
  await readMatrix(source, pair.a, pair.lie, ranges, DTYPES[aDtype].bytes, a, slot, signal);
  if (pair.likeness !== 'different' && !isLayer(pair.b)) lower(likenessOf(a, aDtype, b, bDtype, slot));
  const stats = new Float64Array(4);
  const ids = { aDtype: DTYPES[aDtype].id, bDtype: DTYPES[bDtype].id };
  await run.compute('distance', { a: bitsOf(a, aDtype), b: bitsOf(b, bDtype), ...ids, stats, threads });
  const [abs, squared, squaredA, largest] = stats as unknown as [number, number, number, number];
  const { totals } = pair;
  totals.weights += count;
  totals.abs += abs;
  totals.squared += squared;
  totals.squaredA += squaredA;
  totals.largest = Math.max(totals.largest, largest);
  if (run.onlooker === undefined) return;
  const own = slot.part('onlooker');
  const wide = async (name: string, bytes: Uint8Array, dtype: DType) => {
    if (dtype === 'float32') return bitsOf(bytes, dtype) as Float32Array;
    const to = own.take(name, Float32Array, count);
    await widenBytesLater(bytes, dtype, to, { threads, signal });
    return to;
  };
  run.onlooker.numbers(pair, ranges, await wide('a', a, aDtype), await wide('b', b, bDtype));
}

/** Whether bytes of it decide how like the two are: not where it has none, or two types that are not compared. */
function isRead(pair: Pair): boolean {
  const { a, b, left } = pair;
  return left > 0 && (isNumeric(pair) || (!isLayer(b) && a.type.name === b.type.name));
}

function summarize(
  original: string,
  quantized: string,
  pairs: readonly Pair[],
  lone: readonly string[],
): Omit<CompareReport, 'notes'> {
  // Vectors that differ (norms, biases) are named; of matrices it matters by how much.
  const measured = pairs.filter(
    (pair) => isLayer(pair.b) || (pair.likeness === 'different' && isNumeric(pair) && pair.b.shape.length >= 2),
  );
  const shown = new Set(measured);
  const rest = pairs.filter((pair) => !shown.has(pair));
  const like = (likeness: Likeness) => rest.filter((pair) => pair.likeness === likeness);
  const rounded: Partial<Record<DType, number>> = {};
  for (const { b } of like('rounded')) {
    const { float } = (b as TensorEntry).type;
    rounded[float!] = (rounded[float!] ?? 0) + 1;
  }
  const different = like('different').map(({ name }) => name);
  const sum = (part: (totals: Pair['totals']) => number) =>
    measured.reduce((total, { totals }) => total + part(totals), 0);
  const weights = sum((totals) => totals.weights);
  return {
    original,
    quantized,
    tensors: measured.map(compareOne),
    dense: { equal: like('equal').length, rounded, different: [...different, ...lone] },
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
    ? `${b.storage.nbits}-bit, group ${b.storage.groupSize}, axis ${b.storage.axis}`
    : b.type.float!;
  return {
    name,
    shape: b.shape,
    storage,
    meanAbsError: totals.abs / totals.weights,
    maxAbsError: totals.largest,
    relativeError: relativeError(totals.squared, totals.squaredA),
  };
}
