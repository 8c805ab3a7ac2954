import type { FloatBits } from '../../binding.js';
import { activeBackend } from '../backend/index.js';
import { bitsOf } from '../compute/floats.js';
import { resolveThreads, runTask } from '../compute/run.js';
import type { Container, Layout, TensorEntry, TensorSink, TensorSource, TensorSpec } from '../containers/container.js';
import { containerNamed, openSourceBack } from '../containers/list.js';
import { pieces, type Range, readRanges, writeRanges } from '../containers/ranges.js';
import { rounding } from '../containers/rounding.js';
import type { Scratch } from '../containers/scratch.js';
import { numbersOf, storedFloat } from '../containers/stored-types.js';
import { storedShape, writeMatrix } from '../containers/transpose.js';
import { endingNotes } from '../files/endings.js';
import { type FilePath, pathOf } from '../files/path.js';
import { DTYPES, type DType } from '../matrix/dtype.js';
import { checkDtype } from '../matrix/validate.js';
import { HqqError } from '../messages/errors.js';
import { plain, quoteSome } from '../messages/text.js';
import { plural } from '../messages/units.js';
import { CHUNK_WEIGHTS } from '../schemes/chunks.js';
import type { Chunk, StoredLayer } from '../schemes/scheme.js';
import { findLayers, schemeOf, schemesOf, weightName } from './layers.js';
import { type ConversionRun, checkConversion } from './options.js';
import { convertFolder } from './output-folder.js';
import { pipeline } from './stream/pipeline.js';
import { Counter, copyPiece, copyPieces, makeSlots } from './stream/transfer.js';

/** How `dequantizeModel` runs, and what it gives. */
export interface DequantizeModelOptions extends ConversionRun {
  /**
   * Type of every floating-point tensor: weights, biases and all that was never quantized, each number rounded once (float64 ones
   * by way of float32). A note of the report counts numbers that became infinite. `dtype` or `torch_dtype` of config.json and of its parts say so too, where they are there. FP8 stays; of an ONNX model all that was not quantized, of a GGUF file vectors keep their types.
   *
   * @default undefined: weights of layers that were quantized, and their biases, but for those of ONNX models and GGUF files, become float32, and all else stays as it is
   */
  readonly dtype?: DType | undefined;
  /**
   * Replace an output that exists: a file, an empty folder or a model folder.
   *
   * @default false
   */
  readonly force?: boolean | undefined;
  /**
   * Threads that compute, 1 to 256.
   *
   * @default HQQ_THREADS, else the parallelism that the system offers
   */
  readonly threads?: number | undefined;
}

/** Result of `dequantizeModel`. */
export interface DequantizeReport {
  /** The model that was read, as it was given. */
  readonly input: string;
  /** What was written, as it was given. */
  readonly output: string;
  /** Type of the weights that were written. */
  readonly dtype: DType;
  /** Layers that were dequantized. */
  readonly tensors: number;
  /** Weights of these layers. */
  readonly weights: number;
  /** Sizes of all safetensors files. */
  readonly bytesBefore: number;
  /** The same of the output. */
  readonly bytesAfter: number;
  /** Seconds from start to renamed output. */
  readonly seconds: number;
  /** Remarks for people: "x.bin is a safetensors file, whatever its name says". */
  readonly notes: readonly string[];
}

interface Shard {
  readonly layers: StoredLayer[];
  /** Biases of the layers, and other tensors that take another type. */
  readonly converted: TensorEntry[];
  readonly copies: TensorEntry[];
}

interface Run {
  readonly source: TensorSource;
  readonly sink: TensorSink;
  readonly dtype: DType;
  readonly threads: number;
  readonly counter: Counter;
  /** How many numbers became infinite, by the tensor's name; of those alone where some did. */
  readonly overflows: Map<string, number>;
}

/** As entry.ts says, through which the package exports it. */
export async function dequantizeModel(
  from: FilePath,
  to: FilePath,
  options: DequantizeModelOptions = {},
): Promise<DequantizeReport> {
  const started = performance.now();
  const input = pathOf(from, 'the input');
  const output = pathOf(to, 'the output');
  checkConversion(options, ['dtype', 'force']);
  const { dtype: all, force = false, signal, onProgress } = options;
  const dtype = all ?? 'float32';
  checkDtype(dtype, 'dtype', 'ERR_INVALID_OPTION');
  signal?.throwIfAborted();
  const source = await openSourceBack(input, output);
  try {
    const layers = await findLayers(source, signal);
    if (layers.length === 0 && source.stored === undefined) throw notQuantized(source, input);
    const container = containerNamed(source.container);
    const shards = shardsOf(source, layers, all, container);
    const weights = layers.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
    const biases = new Set(layers.map(({ bias }) => bias));
    const others = [...shards.values()].flatMap(({ copies, converted }) => [...copies, ...converted]);
    const counted = others.filter((entry) => entry.end > entry.begin && !biases.has(entry)).length;
    const shared = {
      ...{ source, dtype, threads: resolveThreads(options.threads) },
      counter: new Counter(onProgress, weights, layers.length + counted),
      overflows: new Map<string, number>(),
    };
    const slots = makeSlots();
    const envelope = source.envelope.replace({
      layers: layers.map((layer) => ({ name: layer.name, tensors: [weightSpec(layer, dtype)] })),
      ...(all === undefined ? {} : { dtype: all }),
      ...{ set: {}, drop: [...new Set(layers.flatMap((layer) => schemeOf(layer).settings))] },
      metadata: textsWithout(source, layers),
    });
    const layouts = new Map<string, Layout>();
    for (const [file, shard] of shards) {
      layouts.set(file, await container.layout(file, specsOf(shard, dtype), envelope));
    }
    const { bytes: bytesAfter, notes: ofPlace } = await convertFolder({
      ...{ source, output, made: container, force, signal, envelope },
      layouts,
      write: async (file, path, layout, mode) => {
        const sink = await container.create(path, layout, mode);
        try {
          const run = { ...shared, sink };
          const each = (job: Job, slot: Scratch, stop: AbortSignal) => work(job, run, slot, stop);
          await pipeline(slots, jobsOf(shards.get(file)!), each, signal);
          await sink.finish();
          return layout;
        } catch (error) {
          await sink.abandon();
          throw error;
        }
      },
    });
    const bytesBefore = source.files.reduce((sum, { size }) => sum + size, 0);
    const seconds = (performance.now() - started) / 1000;
    const notes = [
      ...endingNotes(output, source.kind, container),
      ...overflowNotes(shared.overflows, dtype),
      ...ofPlace,
    ];
    return { input, output, dtype, tensors: layers.length, weights, bytesBefore, bytesAfter, seconds, notes };
  } finally {
    await source.close();
  }
}

function notQuantized(source: TensorSource, input: string): HqqError {
  const schemes = schemesOf(source);
  const names = schemes.map(({ title }) => title).join(', ');
  const obstacle = source.envelope.obstacle(source.entries);
  if (obstacle?.kind === 'quantized' || obstacle?.kind === 'declared') {
    const message = `Expected ${plain(input)} to be quantized with ${names}, but it ${obstacle.what}`;
    return new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Only the tool that made it turns it back.`);
  }
  const marks = schemes.map(({ mark }) => mark).join(', or ');
  const message = `${plain(input)} is not quantized with ${names}: no tensor of it ${marks}. Nothing to do.`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', message);
}

function overflowNotes(overflows: ReadonlyMap<string, number>, dtype: DType): readonly string[] {
  if (overflows.size === 0) return [];
  const count = [...overflows.values()].reduce((sum, one) => sum + one, 0);
  const what = `${plural(count, 'number')} of ${plural(overflows.size, 'tensor')}`;
  const became = count === 1 ? 'is beyond' : 'are beyond';
  return [`${what} ${became} ${dtype} and became infinite: ${quoteSome([...overflows.keys()])}.`];
}

/** What each file holds, by name. `dtype`: what every floating-point tensor becomes, if that was asked for. */
function shardsOf(
  { files, entries }: TensorSource,
  layers: readonly StoredLayer[],
  dtype: DType | undefined,
  { staysWide }: Container,
): ReadonlyMap<string, Shard> {
  const taken = new Set(layers.flatMap(({ entries: own }) => own));
  // Biases go where their weights do, wherever they come from, and become what these do, unless the container has them stay.
  const homes = new Map(layers.flatMap(({ entries: [{ file }], bias }) => (bias ? [[bias, file] as const] : [])));
  const shards = new Map<string, Shard>(files.map(({ name }) => [name, { layers: [], converted: [], copies: [] }]));
  for (const layer of layers) {
    schemeOf(layer).storedChunks(layer); // refuses what cannot be read in parts
    shards.get(layer.entries[0].file)!.layers.push(layer);
  }
  for (const entry of entries.values()) {
    if (taken.has(entry)) continue;
    const { type, file } = entry;
    const home = homes.get(entry);
    const other = dtype !== undefined && numbersOf(type) !== undefined && type.float !== dtype;
    shards.get(home ?? file)![(other || home) && !staysWide?.(entry) ? 'converted' : 'copies'].push(entry);
  }
  return shards;
}

function weightSpec(layer: StoredLayer, dtype: DType): TensorSpec {
  return { name: weightName(layer), type: storedFloat(dtype), shape: storedShape(layer) };
}

function specsOf({ layers, converted, copies }: Shard, dtype: DType): readonly TensorSpec[] {
  return [
    ...copies.map(({ name, type, shape }) => ({ name, type, shape })),
    ...layers.map((layer) => weightSpec(layer, dtype)),
    ...converted.map(({ name, shape }) => ({ name, type: storedFloat(dtype), shape })),
  ];
}

type Job =
  | { readonly kind: 'chunk'; readonly layer: StoredLayer; readonly chunk: Chunk; readonly last: boolean }
  | { readonly kind: 'convert'; readonly entry: TensorEntry; readonly piece: Range; readonly last: boolean }
  | { readonly kind: 'copy'; readonly entry: TensorEntry; readonly piece: Range; readonly last: boolean };

function* jobsOf({ layers, converted, copies }: Shard): Generator<Job> {
  const biases = new Set(layers.map(({ bias }) => bias)); // each counts with its layer
  for (const entry of copies) {
    const size = biases.has(entry) ? undefined : entry.end - entry.begin;
    for (const piece of copyPieces(entry)) yield { kind: 'copy', entry, piece, last: piece.at + piece.count === size };
  }
  for (const entry of converted) {
    const count = (entry.end - entry.begin) / entry.type.blockBytes;
    for (const piece of pieces(count, CHUNK_WEIGHTS))
      yield { kind: 'convert', entry, piece, last: !biases.has(entry) && piece.at + piece.count === count };
  }
  for (const layer of layers) {
    const { shape } = layer;
    let left = shape[0] * shape[1];
    for (const chunk of schemeOf(layer).storedChunks(layer)) {
      left -= chunk.count;
      yield { kind: 'chunk', layer, chunk, last: left === 0 };
    }
  }
}

async function work(job: Job, run: Run, slot: Scratch, signal: AbortSignal): Promise<void> {
  const { source, sink, dtype, threads, counter } = run;
  const lose = (name: string, count: number) => {
    if (count > 0) run.overflows.set(name, (run.overflows.get(name) ?? 0) + count);
  };
  if (job.kind === 'copy') {
    const { entry, piece, last } = job;
    await copyPiece(source, entry, piece, sink, slot, signal);
    counter.add(entry.name, 0, last);
  } else if (job.kind === 'convert') {
    const { entry, piece, last } = job;
    const stored = numbersOf(entry.type)!;
    const bytes = slot.take('stored', Uint8Array, piece.count * DTYPES[stored].bytes);
    const numbers = rounding(source, (_entry, losses) => lose(entry.name, losses.overflows));
    await readRanges(numbers, entry, [piece], DTYPES[stored].bytes, bytes, slot, signal);
    const out = slot.take('weights', Uint8Array, piece.count * DTYPES[dtype].bytes);
    const [from, to] = [bitsOf(bytes, stored), bitsOf(out, dtype)];
    const ids = { fromDtype: DTYPES[stored].id, toDtype: DTYPES[dtype].id };
    await runTask(activeBackend(), 'convert', { from, to, ...ids, threads }, { signal });
    if (dtype !== 'float32' && dtype !== stored) lose(entry.name, infinities(to, dtype) - infinities(from, stored));
    await writeRanges(sink, entry.name, [piece], DTYPES[dtype].bytes, out, signal);
    counter.add(entry.name, 0, last);
  } else {
    const { layer, chunk, last } = job;
    const weights = await schemeOf(layer).decode(source, layer, chunk, dtype, {
      ...{ slot, threads, signal },
      compute: (operation, args) => runTask(activeBackend(), operation, args, { signal }),
    });
    if (dtype !== 'float32') lose(weightName(layer), infinities(bitsOf(weights, dtype), dtype));
    await writeMatrix(sink, weightName(layer), layer, chunk.weights, DTYPES[dtype].bytes, weights, slot, signal);
    counter.add(weightName(layer), chunk.count, last);
  }
}

/** What infinity is without its sign, in raw bits. */
const INFINITY = { float16: 0x7c00, bfloat16: 0x7f80 } as const;

const isInfinite = (bits: number, dtype: DType) =>
  dtype === 'float32' ? Math.abs(bits) === Infinity : (bits & 0x7fff) === INFINITY[dtype];

/** How many numbers are infinite. */
function infinities(values: FloatBits, dtype: DType): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if (isInfinite(values[i]!, dtype)) count++;
  return count;
}

/** What files say of their tensors, but for what they say of layers. */
function textsWithout({ files, envelope }: TensorSource, layers: readonly StoredLayer[]) {
  const schemes = [...new Set(layers.map(schemeOf))];
  return new Map(
    files.map(({ name }) => {
      const pairs = [...(envelope.metadata?.(name) ?? [])];
      const kept = pairs.filter((pair) => !schemes.some((scheme) => scheme.isMetadata?.(...pair)));
      return [name, Object.fromEntries(kept)] as const;
    }),
  );
}
