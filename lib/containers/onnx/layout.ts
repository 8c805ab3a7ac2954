import type { Steps } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { Layout, TensorEntry, TensorSink, TensorSpec } from '../container.js';
import { type FileLayout, FileWriter } from '../writer.js';
import { block, piecesOf, sizeOf } from './encode.js';
import { externalMessage, inlineMessage, isHole } from './tensors.js';
import { type Field, Message } from './wire.js';

/** Most bytes of a file of protobuf, with room to spare: its own limit is 2^31 - 1. */
const MAX_MODEL_BYTES = 1.9 * 1024 ** 3;

/** Tensors of fewer bytes stay in the model: those who load it may need them to know shapes. */
const SMALL_BYTES = 1024;

/** Where a tensor begins in the file beside the model: at a multiple of this. */
const ALIGNMENT = 64;

/** What follows the name of a model in that of the file that holds its tensors. */
export const DATA_SUFFIX = '_data';

/** A model, and the file beside it that its larger tensors lie in, if they do. Entries stand in the model's file, those of the other one after it. */
export interface OnnxLayout extends Layout {
  readonly main: FileLayout;
  /** What of the model is no tensor, by the names that stand for it. */
  readonly gaps: ReadonlyMap<string, Uint8Array>;
  readonly data: FileLayout | undefined;
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
  /** Called where they will. */
  readonly told: () => void;
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
  if (apart) draft.told();
  const places = new Map<string, number>();
  let dataSize = 0;
  const message = !apart
    ? inlined
    : mapTensors(inlined, (tensor) => {
        const hole = tensor.fields.map(({ payload }) => payload).find(isHole);
        const bytes = hole ? hole.end - hole.begin : 0;
        if (hole?.entry === undefined || bytes < SMALL_BYTES) return tensor;
        const at = Math.ceil(dataSize / ALIGNMENT) * ALIGNMENT;
        places.set(hole.entry, at);
        dataSize = at + bytes;
        return externalMessage(tensor, `${draft.name}${DATA_SUFFIX}`, at, bytes);
      });
  yield;
  const size = sizeOf(message);
  if (size > MAX_MODEL_BYTES) {
    const what = `Expected a graph that fits into one file of protobuf, 2 GB, without its tensors, got ${size} bytes`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(file)}: ${what}.`);
  }
  const entries = new Map<string, TensorEntry>();
  const main = new Map<string, TensorEntry>();
  const gaps = new Map<string, Uint8Array>();
  let header: Uint8Array | undefined;
  let run: Uint8Array[] = [];
  let at = 0;
  const endRun = () => {
    const bytes = Buffer.concat(run);
    run = [];
    if (header === undefined) header = bytes;
    else if (bytes.length > 0) {
      const name = `\0${gaps.size}`;
      gaps.set(name, bytes);
      main.set(name, { name, type: GAP, shape: [bytes.length], file, begin: at - bytes.length, end: at });
    }
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
      continue;
    }
    endRun();
    const spec = demand(piece.entry);
    const entry = { ...specOf(spec), file, begin: at, end: (at += piece.end - piece.begin) };
    entries.set(spec.name, entry);
    main.set(spec.name, entry);
    yield;
  }
  endRun();
  const data = new Map<string, TensorEntry>();
  for (const [key, begin] of places) {
    const { spec, bytes } = sizes.get(key)!;
    data.set(spec.name, { ...specOf(spec), file, begin, end: begin + bytes });
    entries.set(spec.name, { ...specOf(spec), file, begin: at + begin, end: at + begin + bytes });
    yield;
  }
  for (const { spec } of sizes.values()) {
    if (entries.has(spec.name)) continue;
    throw new RangeError(`Expected tensor ${quote(spec.name)} to have a place in the graph, got none.`);
  }
  return {
    ...{ entries, fileSize: at + dataSize, gaps },
    main: { entries: main, fileSize: at, header: header! },
    data: apart ? { entries: data, fileSize: dataSize, header: new Uint8Array(0) } : undefined,
  };
}

const GAP = { name: 'U8', blockElements: 1, blockBytes: 1 };
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

/** Creates the file of a model, and the one beside it. */
export async function createModel(path: string, layout: OnnxLayout, mode: number | undefined): Promise<TensorSink> {
  const main = await FileWriter.create(path, layout.main, mode);
  let data: FileWriter | undefined;
  try {
    for (const [name, bytes] of layout.gaps) await main.write(name, 0, bytes);
    data = layout.data && (await FileWriter.create(`${path}${DATA_SUFFIX}`, layout.data, mode));
  } catch (error) {
    await main.abandon();
    throw error;
  }
  const writerOf = (name: string) => (data && layout.data!.entries.has(name) ? data : main);
  return {
    write: (name, at, bytes) => writerOf(name).write(name, at, bytes),
    writePieces: (name, pieces, bytes, signal) => writerOf(name).writePieces(name, pieces, bytes, signal),
    async finish() {
      await data?.finish();
      await main.finish();
    },
    async abandon() {
      await Promise.all([main.abandon(), data?.abandon()]);
    },
  };
}
