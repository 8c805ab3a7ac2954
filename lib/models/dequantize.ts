import { activeBackend } from '../backend/index.js';
import { resolveThreads } from '../compute/run.js';
import { Checkpoint, type CheckpointTensor } from '../containers/safetensors/checkpoint.js';
import { planLayout, type TensorSpec } from '../containers/safetensors/layout.js';
import type { SafetensorsFile } from '../containers/safetensors/reader.js';
import { SafetensorsWriter } from '../containers/safetensors/writer.js';
import { endingNotes } from '../files/endings.js';
import { DTYPES, type DType, dtypeFromSafetensors } from '../matrix/dtype.js';
import { checkDtype } from '../matrix/validate.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { narrowBytes, widenBytes } from '../schemes/hqq/half.js';
import { type ReadLayer, readLayers } from '../schemes/hqq/read-layers.js';
import { withoutMember } from './config-text.js';
import { type ConversionRun, checkConversion, checkPath } from './options.js';
import { convertFolder, inputsOf } from './output-folder.js';
import { withFormat } from './plan.js';
import { CHUNK_WEIGHTS, type Chunk, type Range } from './stream/chunks.js';
import { checkLayer, dequantizeChunk, layerChunks } from './stream/layer-chunks.js';
import { pipeline, type Scratch } from './stream/pipeline.js';
import { Counter, copyPiece, copyPieces, makeSlots, pieces, readRanges, writeRanges } from './stream/transfer.js';

/** How `dequantizeModel` runs, and what it gives. */
export interface DequantizeModelOptions extends ConversionRun {
  /**
   * Type of the weights, and of the biases of layers that were quantized. Other tensors keep theirs.
   *
   * @default 'float32'
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
  readonly layers: ReadLayer[];
  readonly copies: CheckpointTensor[];
}

interface Run {
  readonly writer: SafetensorsWriter;
  readonly dtype: DType;
  readonly threads: number;
  readonly counter: Counter;
}

/** As entry.ts says, through which the package exports it. */
export async function dequantizeModel(
  input: string,
  output: string,
  options: DequantizeModelOptions = {},
): Promise<DequantizeReport> {
  const started = performance.now();
  checkPath(input, 'the input');
  checkPath(output, 'the output');
  checkConversion(options, ['dtype', 'force']);
  const { dtype = 'float32', force = false, signal, onProgress } = options;
  checkDtype(dtype, 'dtype', 'ERR_INVALID_OPTION');
  signal?.throwIfAborted();
  const checkpoint = await Checkpoint.open(input);
  try {
    const layers = [...(await readLayers(checkpoint, signal)).values()];
    if (layers.length === 0) {
      const message = `${plain(input)} is not quantized with HQQ: no tensor of it is called <module>.W_q. Nothing to do`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}.`);
    }
    const taken = new Set(layers.flatMap(({ keys, bias }) => [...keys, ...(bias ? [bias] : [])]));
    const shards = new Map<SafetensorsFile, Shard>(checkpoint.files.map((file) => [file, { layers: [], copies: [] }]));
    for (const layer of layers) {
      checkLayer(layer);
      shards.get(layer.packed.file)!.layers.push(layer);
    }
    for (const tensor of checkpoint.tensors.values())
      if (!taken.has(tensor)) shards.get(tensor.file)!.copies.push(tensor);
    const weights = layers.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
    const copies = [...shards.values()].flatMap((shard) => shard.copies).filter(({ entry }) => entry.end > entry.begin);
    const shared = {
      dtype,
      threads: resolveThreads(options.threads),
      counter: new Counter(onProgress, weights, layers.length + copies.length),
    };
    const layout = (file: SafetensorsFile, shard: Shard) =>
      planLayout(specsOf(shard, dtype), withFormat(file.metadata));
    const layouts = new Map([...shards].map(([file, shard]) => [file, layout(file, shard)]));
    const slots = makeSlots();
    const bytesAfter = await convertFolder({
      ...{ checkpoint, output, force, signal },
      config: (text) => withoutMember(text, 'quantization_config'),
      layouts,
      write: async (file, path, planned, mode) => {
        const writer = await SafetensorsWriter.create(path, planned, mode);
        try {
          const run = { ...shared, writer };
          const jobs = jobsOf(shards.get(file)!);
          const each = (job: Job, slot: Scratch, stop: AbortSignal) => work(job, run, slot, stop);
          await pipeline(slots, jobs, each, signal);
          await writer.finish();
          return planned;
        } catch (error) {
          await writer.abandon();
          throw error;
        }
      },
    });
    const bytesBefore = checkpoint.files.reduce((sum, { size }) => sum + size, 0);
    const seconds = (performance.now() - started) / 1000;
    const notes = endingNotes(output, inputsOf(checkpoint).kind);
    return { input, output, dtype, tensors: layers.length, weights, bytesBefore, bytesAfter, seconds, notes };
  } finally {
    await checkpoint.close();
  }
}

function specsOf({ layers, copies }: Shard, dtype: DType): readonly TensorSpec[] {
  const type = DTYPES[dtype].safetensors;
  return [
    ...copies.map(({ entry: { name, dtype: own, shape } }) => ({ name, dtype: own, shape })),
    ...layers.map(({ module, shape }) => ({ name: `${module}.weight`, dtype: type, shape })),
    ...layers.flatMap(({ bias }) => (bias ? [{ name: bias.entry.name, dtype: type, shape: bias.entry.shape }] : [])),
  ];
}

type Job =
  | { readonly kind: 'chunk'; readonly layer: ReadLayer; readonly chunk: Chunk; readonly last: boolean }
  | { readonly kind: 'bias'; readonly bias: CheckpointTensor; readonly piece: Range }
  | { readonly kind: 'copy'; readonly tensor: CheckpointTensor; readonly piece: Range };

function* jobsOf({ layers, copies }: Shard): Generator<Job> {
  for (const tensor of copies) for (const piece of copyPieces(tensor)) yield { kind: 'copy', tensor, piece };
  for (const layer of layers) {
    const { bias, shape } = layer;
    if (bias) for (const piece of pieces(shape[0], CHUNK_WEIGHTS)) yield { kind: 'bias', bias, piece };
    let left = shape[0] * shape[1];
    for (const chunk of layerChunks(layer)) {
      left -= chunk.rows * chunk.cols;
      yield { kind: 'chunk', layer, chunk, last: left === 0 };
    }
  }
}

async function work(
  job: Job,
  { writer, dtype, threads, counter }: Run,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  if (job.kind === 'copy') {
    const { entry } = job.tensor;
    await copyPiece(job.tensor, job.piece, writer, slot, signal);
    counter.add(entry.name, 0, job.piece.at + job.piece.count === entry.end - entry.begin);
  } else if (job.kind === 'bias') {
    const { bias, piece } = job;
    const stored = dtypeFromSafetensors(bias.entry.dtype)!;
    const bytes = slot.take('stored bias', Uint8Array, piece.count * DTYPES[stored].bytes);
    await readRanges(bias, [piece], DTYPES[stored].bytes, bytes, signal);
    const values = slot.take('bias', Float32Array, piece.count);
    widenBytes(bytes, stored, values);
    const out = slot.take('weights', Uint8Array, piece.count * DTYPES[dtype].bytes);
    narrowBytes(values, dtype, out);
    await writeRanges(writer, bias.entry.name, [piece], DTYPES[dtype].bytes, out, signal);
  } else {
    const { layer, chunk, last } = job;
    const weights = await dequantizeChunk(layer, chunk, dtype, { backend: activeBackend(), threads, slot, signal });
    await writeRanges(writer, `${layer.module}.weight`, chunk.weights, DTYPES[dtype].bytes, weights, signal);
    counter.add(`${layer.module}.weight`, chunk.rows * chunk.cols, last);
  }
}
