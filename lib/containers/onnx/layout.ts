import type { Steps } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { Layout, TensorEntry, TensorSink, TensorSpec } from '../container.js';
import { type FileLayout, type FilePiece, FileWriter } from '../writer.js';
import { block, piecesOf } from './encode.js';
import { externalMessage, inlineMessage, isHole } from './tensors.js';
import { type Field, Message, sizeOf } from './wire.js';

/** Most bytes of a file of protobuf, with room to spare: its own limit is 2^31 - 1. */
const MAX_MODEL_BYTES = 1.9 * 1024 ** 3;

/** Tensors of fewer bytes stay in the model: those who load it may need them to know shapes. */
const SMALL_BYTES = 1024;

const ZEROS = new Uint8Array(SMALL_BYTES);

/** Bytes between tensors that are put together, about. */
const RUN_BYTES = 1024 * 1024;

/** Where a tensor begins in the file beside the model: at a multiple of this. */
const ALIGNMENT = 64;

/** What follows the name of a model in that of the file that holds its tensors. */
export const DATA_SUFFIX = '_data';

/** The same of file `index` of several, as transformers.js counts them. */
const dataSuffix = (index: number): string => (index === 0 ? DATA_SUFFIX : `${DATA_SUFFIX}_${index}`);

/** Most bytes of each, where browsers are to load them: they have no arrays of 2 GiB. Only a tensor that is larger has a larger file. */
export const MAX_CHUNK_BYTES = 1.9 * 1024 ** 3;

/** Most files of a model's tensors, of which transformers.js takes no more. */
const MAX_CHUNKS = 100;

/** A model, and the files beside it that its larger tensors lie in, if they do. Entries stand in the model's file, those of the others after it. */
export interface OnnxLayout extends Layout {
  readonly main: FileLayout;
  readonly data: readonly FileLayout[];
}

/** A model to be written. */
export interface OnnxDraft {
  readonly message: Message;
  /** Name of the tensor of a message whose numbers lie in another file; undefined for others. */
  readonly keyOf: (tensor: Message) => string | undefined;
  /** What its file will be called, without folders. */
  readonly name: string;
  /** Goes before the names of its tensors in all of a model's files. */
  readonly prefix: string;
  /** Whether its tensors lie in another file, however small it is. */
  readonly apart: boolean;
  /** Most bytes of each such file; one file is as large as it has to be where this is Infinity. */
  readonly chunkBytes: number;
  /** Called where they will, with the number of these files. */
  readonly told: (files: number) => void;
}

/** Where tensors go in the files beside a model. */
class Chunks {
  readonly places = new Map<string, { readonly chunk: number; readonly begin: number }>();
  readonly sizes = [0];
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  /** A place for a tensor. */
  take(key: string, bytes: number): { readonly chunk: number; readonly begin: number } {
    let begin = Math.ceil(this.sizes.at(-1)! / ALIGNMENT) * ALIGNMENT;
    if (begin > 0 && begin + bytes > this.#most) {
      this.sizes.push(0);
      begin = 0;
    }
    const place = { chunk: this.sizes.length - 1, begin };
    this.sizes[place.chunk] = begin + bytes;
    this.places.set(key, place);
    return place;
  }
}

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a model of more than 2 GB without its tensors. */
export function* layoutSteps(file: string, specs: readonly TensorSpec[], draft: OnnxDraft): Steps<OnnxLayout> {
  const sizes = new Map(specs.map((spec) => [spec.name.slice(draft.prefix.length), { spec, bytes: bytesOf(spec) }]));
  const inlined = mapTensors(draft.message, (tensor) => {
    const key = draft.keyOf(tensor);
    return key === undefined ? tensor : inlineMessage(tensor, key, sizes.get(key)!.bytes);
  });
  yield;
  const apart = draft.apart || sizeOf(inlined) > MAX_MODEL_BYTES;
  const chunks = new Chunks(draft.chunkBytes);
  const message = !apart
    ? inlined
    : mapTensors(inlined, (tensor) => {
        const hole = tensor.fields.map(({ payload }) => payload).find(isHole);
        const bytes = hole ? hole.end - hole.begin : 0;
        if (hole?.entry === undefined || bytes < SMALL_BYTES) return tensor;
        const { chunk, begin } = chunks.take(hole.entry, bytes);
        return externalMessage(tensor, `${draft.name}${dataSuffix(chunk)}`, begin, bytes);
      });
  if (apart) draft.told(chunks.sizes.length);
  if (chunks.sizes.length > MAX_CHUNKS) {
    const what = `Expected tensors that fit into ${MAX_CHUNKS} files, which transformers.js loads at most, got ${chunks.sizes.length}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(file)}: ${what}. Quantize the file by itself.`);
  }
  yield;
  const size = sizeOf(message);
  if (size > MAX_MODEL_BYTES) {
    const what = `Expected a graph that fits into one file of protobuf, 2 GB, without its tensors, got ${size} bytes`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(file)}: ${what}.`);
  }
  const entries = new Map<string, TensorEntry>();
  const main = new Map<string, TensorEntry>();
  const runs: FilePiece[] = [];
  let run: Uint8Array[] = [];
  let at = 0;
  let begin = 0; // of the run
  const endRun = () => {
    if (at > begin || runs.length === 0) runs.push({ at: begin, bytes: Buffer.concat(run, at - begin) });
    run = [];
  };
  const demand = (name: string | undefined) => {
    const found = name === undefined ? undefined : sizes.get(name);
    if (found === undefined) throw new RangeError(`Expected a tensor ${quote(name ?? '')} to be written, got none.`);
    return found.spec;
  };
  for (const piece of piecesOf(message)) {
    if (piece instanceof Uint8Array) {
      run.push(piece);
      at += piece.length;
      yield;
      continue;
    }
    const { name, type, shape } = demand(piece.entry);
    const bytes = piece.end - piece.begin;
    // Zeros stand for small tensors, of which there may be many, until they are written.
    const ends = bytes > SMALL_BYTES || at - begin > RUN_BYTES || runs.length === 0;
    if (ends) endRun();
    else run.push(ZEROS.subarray(0, bytes));
    const entry = { name, type, shape, file, begin: at, end: (at += bytes) };
    if (ends) begin = at;
    entries.set(name, entry);
    main.set(name, entry);
    yield;
  }
  endRun();
  const [header, ...more] = runs as [FilePiece, ...FilePiece[]];
  const data = chunks.sizes.map(() => new Map<string, TensorEntry>());
  // Where each file begins, were they one.
  const bases = chunks.sizes.map((_, i) => chunks.sizes.slice(0, i).reduce((sum, bytes) => sum + bytes, at));
  for (const [key, { chunk, begin }] of chunks.places) {
    const { spec, bytes } = sizes.get(key)!;
    data[chunk]!.set(spec.name, { ...specOf(spec), file, begin, end: begin + bytes });
    const first = bases[chunk]! + begin;
    entries.set(spec.name, { ...specOf(spec), file, begin: first, end: first + bytes });
    yield;
  }
  for (const { spec } of sizes.values()) {
    if (entries.has(spec.name)) continue;
    throw new RangeError(`Expected tensor ${quote(spec.name)} to have a place in the graph, got none.`);
  }
  return {
    ...{ entries, fileSize: chunks.sizes.reduce((sum, bytes) => sum + bytes, at) },
    main: { entries: main, fileSize: at, header: header.bytes, more },
    data: apart ? data.map((own, i) => ({ entries: own, fileSize: chunks.sizes[i]!, header: new Uint8Array(0) })) : [],
  };
}

const specOf = ({ name, type, shape }: TensorSpec): TensorSpec => ({ name, type, shape });
const bytesOf = ({ type, shape }: TensorSpec) =>
  (shape.reduce((product, size) => product * size, 1) / type.blockElements) * type.blockBytes;

/** A model whose tensors are others; the same where none is. Of messages that are read: of no others anything is changed. */
function mapTensors(model: Message, change: (tensor: Message) => Message): Message {
  const mapped = (message: Message, inner: (field: Field) => Field): Message => {
    const fields = message.fields.map((field) => (field.payload instanceof Message ? inner(field) : field));
    return fields.every((field, i) => field === message.fields[i]) ? message : new Message(fields);
  };
  const again = (field: Field, other: Message): Field => (other === field.payload ? field : block(field.number, other));
  const own = (field: Field) => field.payload as Message;
  const attribute = (field: Field): Field => {
    if (field.number === 5 || field.number === 10) return again(field, change(own(field)));
    return field.number === 6 || field.number === 11 ? again(field, mapped(own(field), inGraph)) : field;
  };
  const inNode = (field: Field) => (field.number === 5 ? again(field, mapped(own(field), attribute)) : field);
  const inGraph = (field: Field): Field => {
    if (field.number === 5) return again(field, change(own(field)));
    return field.number === 1 ? again(field, mapped(own(field), inNode)) : field;
  };
  return mapped(model, (field) => (field.number === 7 ? again(field, mapped(own(field), inGraph)) : field));
}

/** Creates the file of a model, and those beside it. */
export async function createModel(path: string, layout: OnnxLayout, mode: number | undefined): Promise<TensorSink> {
  const main = await FileWriter.create(path, layout.main, mode);
  const data: FileWriter[] = [];
  try {
    for (const [i, own] of layout.data.entries())
      data.push(await FileWriter.create(`${path}${dataSuffix(i)}`, own, mode));
  } catch (error) {
    await Promise.all([main, ...data].map((writer) => writer.abandon()));
    throw error;
  }
  const writers = new Map(
    layout.data.flatMap(({ entries }, i) => [...entries.keys()].map((name) => [name, data[i]!] as const)),
  );
  const writerOf = (name: string) => writers.get(name) ?? main;
  return {
    write: (name, at, bytes) => writerOf(name).write(name, at, bytes),
    writePieces: (name, pieces, bytes, signal) => writerOf(name).writePieces(name, pieces, bytes, signal),
    async finish() {
      for (const writer of [...data, main]) await writer.finish();
    },
    async abandon() {
      await Promise.all([main, ...data].map((writer) => writer.abandon()));
    },
  };
}
