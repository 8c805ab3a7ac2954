import { type Steps, sortSteps } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import type { TensorEntry, TensorSpec } from '../container.js';
import type { FileLayout } from '../writer.js';
import {
  MAGIC,
  MAX_DIMENSIONS,
  MAX_HEADER_BYTES,
  MAX_NAME,
  MAX_TENSORS,
  PREFIX_BYTES,
  WRITTEN_VERSION,
} from './header.js';
import { idOfType } from './types.js';

/** What surrounds the tensors of a file, as its header has it. */
export interface GgufSurroundings {
  readonly pairCount: number;
  readonly pairBytes: Uint8Array;
  readonly alignment: number;
  /** Place of a tensor among others, by its name; those without one come last. */
  readonly order: ReadonlyMap<string, number>;
}

/**
 * The layout of a file, tensor by tensor: in the order that they had, without gaps but for alignment, as ggml demands it.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for names, types and shapes that no GGUF file can hold.
 */
export function* layoutSteps(
  file: string,
  specs: readonly TensorSpec[],
  { pairCount, pairBytes, alignment, order }: GgufSurroundings,
): Steps<FileLayout> {
  const place = ({ name }: TensorSpec) => order.get(name) ?? Number.POSITIVE_INFINITY;
  const sorted = yield* sortSteps(specs, (a, b) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0));
  if (sorted.length > MAX_TENSORS) throw unfit(`at most ${MAX_TENSORS} tensors in a GGUF file`, String(sorted.length));
  const names = new Set<string>();
  const infos: Uint8Array[] = [];
  const sizes: number[] = [];
  let offset = 0;
  for (const spec of sorted) {
    if (names.has(spec.name)) throw unfit('every tensor name once in a file', `${quote(spec.name)} twice`);
    names.add(spec.name);
    infos.push(infoOf(spec, offset));
    const bytes = bytesOf(spec);
    sizes.push(bytes);
    offset = aligned(offset + bytes, alignment);
    yield;
  }
  const used = infos.reduce((sum, { byteLength }) => sum + byteLength, PREFIX_BYTES + pairBytes.byteLength);
  const length = aligned(used, alignment);
  if (length > MAX_HEADER_BYTES) throw unfit(`a header of at most ${MAX_HEADER_BYTES} bytes`, String(length));
  const header = Buffer.alloc(length);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt32LE(WRITTEN_VERSION, 4);
  header.writeBigUInt64LE(BigInt(sorted.length), 8);
  header.writeBigUInt64LE(BigInt(pairCount), 16);
  header.set(pairBytes, PREFIX_BYTES);
  let at = PREFIX_BYTES + pairBytes.byteLength;
  const entries = new Map<string, TensorEntry>();
  let begin = length;
  for (const [i, { name, type, shape }] of sorted.entries()) {
    header.set(infos[i]!, at);
    at += infos[i]!.byteLength;
    const end = begin + sizes[i]!;
    entries.set(name, { name, type, shape, file, begin, end });
    begin = aligned(end, alignment);
    yield;
  }
  return { header, entries, fileSize: begin };
}

const aligned = (at: number, alignment: number) => Math.ceil(at / alignment) * alignment;

function bytesOf({ name, type, shape }: TensorSpec): number {
  const inner = shape.at(-1) ?? 1;
  const bytes = shape.reduce((product, size) => product * size, type.blockBytes) / type.blockElements;
  if (inner % type.blockElements === 0 && Number.isSafeInteger(bytes)) return bytes;
  throw unfit(`rows of ${quote(name)} to fill blocks of ${type.blockElements} (${type.name})`, shape.join(' x '));
}

function infoOf({ name, type, shape }: TensorSpec, offset: number): Uint8Array {
  const text = Buffer.from(name);
  const id = idOfType(type);
  if (text.byteLength === 0 || text.byteLength >= MAX_NAME)
    throw unfit(`names of tensors of 1 to ${MAX_NAME - 1} bytes, as ggml does`, quote(name));
  if (id === undefined) throw unfit('types that ggml has', `${type.name} for ${quote(name)}`);
  if (shape.length > MAX_DIMENSIONS)
    throw unfit(`at most ${MAX_DIMENSIONS} dimensions`, `${shape.length} for ${quote(name)}`);
  const info = Buffer.alloc(8 + text.byteLength + 4 + 8 * shape.length + 4 + 8);
  info.writeBigUInt64LE(BigInt(text.byteLength), 0);
  info.set(text, 8);
  let at = 8 + text.byteLength;
  at = info.writeUInt32LE(shape.length, at);
  for (const size of [...shape].reverse()) at = info.writeBigUInt64LE(BigInt(size), at);
  at = info.writeUInt32LE(id, at);
  info.writeBigUInt64LE(BigInt(offset), at);
  return info;
}

function unfit(expected: string, got: string): HqqError {
  return new HqqError('ERR_CHECKPOINT_CONTENT', `Expected ${expected}, got ${got}.`);
}
