import { type Steps, sortSteps } from '../../files/event-loop.js';
import { plain, quote } from '../../messages/text.js';
import type { TensorEntry } from '../container.js';
import { ByteCursor } from './cursor.js';
import { typeOfId } from './types.js';
import { decodeValue, type GgufValue, VALUE, VALUE_BYTES } from './values.js';

/** The four letters that every file begins with. */
export const MAGIC = 'GGUF';

/** Versions that are read: 2 differs in nothing that is read here. Version 1 had 32-bit lengths. */
const VERSIONS = [2, 3];
export const WRITTEN_VERSION = 3;

/** Magic, version, and the numbers of tensors and pairs. */
export const PREFIX_BYTES = 24;

/**
 * Largest header that is read. The largest vocabularies, 260 thousand tokens with their merges and scores, take some 20 MB. A header
 * claims its own size: a hostile one must not cost more than some 200 MB of memory.
 */
export const MAX_HEADER_BYTES = 64 * 1024 * 1024;

/** Most tensors of a file, and pairs. Real ones have a few thousand and some fifty; each costs half a kilobyte. */
export const MAX_TENSORS = 65_536;
const MAX_PAIRS = 16_384;

/** Longest name of a tensor, with the zero that ends it, as in ggml; and longest key. */
export const MAX_NAME = 64;
const MAX_KEY = 65_535;

/** Most dimensions of a tensor, as in ggml. */
export const MAX_DIMENSIONS = 4;

/** Arrays may hold arrays, so deep. */
const MAX_DEPTH = 4;

/** Where no pair says otherwise, tensors begin at multiples of so many bytes; and the most that a pair may say. */
export const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 1024 * 1024;
export const ALIGNMENT_KEY = 'general.alignment';

/** Elements of arrays that are read before the event loop may turn. */
const TURN = 4096;

/** A key-value pair: where it and its value lie in `GgufHeader.pairBytes`. */
export interface Pair {
  readonly type: number;
  readonly begin: number;
  readonly value: number;
  readonly end: number;
}

/** What a header says. */
export interface GgufHeader {
  readonly pairs: ReadonlyMap<string, Pair>;
  /** All pairs, as the file has them. */
  readonly pairBytes: Uint8Array;
  readonly alignment: number;
  /** In the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

/** The file that a header belongs to. */
interface HeaderSource {
  /** Name, as entries say it. */
  readonly file: string;
  readonly path: string;
  /** Bytes in all. */
  readonly fileSize: number;
}

/** Value of a pair. A list is an empty one: none is wanted here, and a long one takes long. */
export function pairValue(
  { pairBytes, pairs }: Pick<GgufHeader, 'pairBytes' | 'pairs'>,
  key: string,
): GgufValue | undefined {
  const pair = pairs.get(key);
  if (pair?.type === VALUE.array) return [];
  return pair && decodeValue(new ByteCursor(pairBytes, key, pairBytes.byteLength, pair.value), pair.type);
}

/**
 * Checks and reads a header. Trusts nothing.
 *
 * @param bytes The first of the file. Where they are too few, `MORE` is thrown.
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT`
 */
export function* headerSteps(bytes: Uint8Array, source: HeaderSource): Steps<GgufHeader> {
  const { path, fileSize } = source;
  const cursor = new ByteCursor(bytes, path, fileSize);
  if (fileSize < PREFIX_BYTES)
    throw cursor.error(
      `expected at least ${PREFIX_BYTES} bytes, got ${fileSize}. The file is truncated or not a GGUF file.`,
    );
  const magic = cursor.text(4);
  if (magic !== MAGIC)
    throw cursor.error(`expected the file to begin with ${MAGIC}, got ${quote(magic)}. It is not a GGUF file.`);
  checkVersion(cursor);
  const tensorCount = limited(cursor, 'the number of tensors', MAX_TENSORS);
  const pairCount = limited(cursor, 'the number of key-value pairs', MAX_PAIRS);
  const pairs = new Map<string, Pair>();
  for (let i = 0; i < pairCount; i++) {
    const begin = cursor.at;
    const key = readName(cursor, 'a key', MAX_KEY);
    if (pairs.has(key)) throw cursor.error(`expected every key once, got ${quote(key)} again at byte ${begin}.`);
    const type = cursor.u32();
    const value = cursor.at;
    yield* skipValue(cursor, type, key, 0);
    pairs.set(key, {
      ...{ type, begin: begin - PREFIX_BYTES, value: value - PREFIX_BYTES, end: cursor.at - PREFIX_BYTES },
    });
    yield;
  }
  const pairBytes = cursor.bytes(PREFIX_BYTES, cursor.at);
  const alignment = readAlignment({ pairs, pairBytes }, cursor);
  const found: Located[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const tensor = readTensor(cursor);
    if (names.has(tensor.name)) throw cursor.error(`expected every tensor once, got ${quote(tensor.name)} twice.`);
    names.add(tensor.name);
    found.push(tensor);
    yield;
  }
  const data = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = yield* placed(found, { ...source, alignment, data }, cursor);
  return { pairs, pairBytes, alignment, tensors };
}

function checkVersion(cursor: ByteCursor): void {
  const version = cursor.u32();
  if (VERSIONS.includes(version)) return;
  const swapped = version !== 0 && version % 65_536 === 0;
  const why = swapped
    ? 'It was written for a big-endian machine; only little-endian files are read'
    : 'Convert it with a version of llama.cpp that reads it';
  throw cursor.error(`expected version ${VERSIONS.join(' or ')} of GGUF, got ${version}. ${why}.`);
}

function limited(cursor: ByteCursor, what: string, most: number): number {
  const count = cursor.big();
  if (count <= BigInt(most)) return Number(count);
  throw cursor.error(
    `expected ${what} to be at most ${most}, got ${count}. The file is damaged, or made to exhaust memory.`,
  );
}

const UTF8 = new TextDecoder('utf-8', { fatal: true });

function readName(cursor: ByteCursor, what: string, most: number): string {
  const { at } = cursor;
  const length = cursor.u64(`the length of ${what}`);
  if (length === 0 || length > most)
    throw cursor.error(`expected ${what} at byte ${at} to have 1 to ${most} bytes, got ${length}.`);
  const begin = cursor.skip(length, what);
  try {
    return UTF8.decode(cursor.bytes(begin, begin + length));
  } catch {
    throw cursor.error(`expected ${what} at byte ${at} to be UTF-8 text, got other bytes.`);
  }
}

function* skipValue(cursor: ByteCursor, type: number, key: string, depth: number): Steps<void> {
  const size = VALUE_BYTES[type];
  if (size === undefined) {
    throw cursor.error(
      `the value of ${quote(key)} has the unknown type ${type} (known ones: 0 to ${VALUE_BYTES.length - 1}).`,
    );
  }
  if (type === VALUE.string) cursor.skip(cursor.u64(`a text of ${quote(key)}`), `a text of ${quote(key)}`);
  else if (type !== VALUE.array) cursor.skip(size, `the value of ${quote(key)}`);
  else {
    if (depth === MAX_DEPTH)
      throw cursor.error(`the value of ${quote(key)} has arrays in arrays, deeper than ${MAX_DEPTH}.`);
    const of = cursor.u32();
    const count = cursor.u64(`the length of ${quote(key)}`);
    const each = VALUE_BYTES[of] ?? 0;
    if (each > 0) {
      cursor.skip(count * each, `the array ${quote(key)}`);
      return;
    }
    for (let i = 0; i < count; i++) {
      if (i % TURN === 0) yield;
      yield* skipValue(cursor, of, key, depth + 1);
    }
    if (VALUE_BYTES[of] === undefined) yield* skipValue(cursor, of, key, depth + 1); // which says what is wrong
  }
}

function readAlignment(header: Pick<GgufHeader, 'pairBytes' | 'pairs'>, cursor: ByteCursor): number {
  const value = pairValue(header, ALIGNMENT_KEY);
  if (value === undefined) return DEFAULT_ALIGNMENT;
  const sound =
    header.pairs.get(ALIGNMENT_KEY)!.type === VALUE.u32 &&
    Number.isInteger(Math.log2(value as number)) &&
    (value as number) <= MAX_ALIGNMENT;
  if (sound) return value as number;
  const got = plain(Array.isArray(value) ? 'an array' : String(value).slice(0, 100));
  throw cursor.error(`expected ${ALIGNMENT_KEY} to be a power of two up to ${MAX_ALIGNMENT} (uint32), got ${got}.`);
}

/** A tensor, and where it begins after the header. */
type Located = Omit<TensorEntry, 'file'>;

function readTensor(cursor: ByteCursor): Located {
  const name = readName(cursor, 'the name of a tensor', MAX_NAME - 1);
  const wrong = (message: string) => cursor.error(`tensor ${quote(name)} ${message}.`);
  const dimensions = cursor.u32();
  if (dimensions > MAX_DIMENSIONS) throw wrong(`has ${dimensions} dimensions; at most ${MAX_DIMENSIONS} are expected`);
  const shape: number[] = [];
  let elements = 1n;
  for (let i = 0; i < dimensions; i++) {
    const size = cursor.big();
    elements *= size === 0n ? 1n : size; // a dimension of 0 does not excuse the others
    if (elements > BigInt(Number.MAX_SAFE_INTEGER))
      throw wrong(`has a size that is too large: ${size} in dimension ${i}`);
    shape.unshift(Number(size)); // a file has them innermost first
  }
  const id = cursor.u32();
  const type = typeOfId(id);
  if (type === undefined) {
    throw wrong(`has the type ${id}, which is unknown, or was given up by ggml. Convert the model anew, or update hqq`);
  }
  const inner = shape.at(-1) ?? 1;
  if (inner % type.blockElements !== 0) {
    throw wrong(`has rows of ${inner} numbers, which do not fill blocks of ${type.blockElements} (${type.name})`);
  }
  const offset = cursor.big();
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) throw wrong(`begins at offset ${offset}, past the end of any file`);
  const count = shape.includes(0) ? 0 : Number(elements);
  const bytes = (count / type.blockElements) * type.blockBytes;
  if (!Number.isSafeInteger(Number(offset) + bytes)) throw wrong(`has a size that is too large: ${shape.join(' x ')}`);
  return { name, type, shape, begin: Number(offset), end: Number(offset) + bytes };
}

interface DataSource extends HeaderSource {
  readonly alignment: number;
  /** Where tensors begin. */
  readonly data: number;
}

/** The tensors sorted by position, which must lie inside the file, aligned and apart. */
function* placed(
  tensors: readonly Located[],
  { file, fileSize, alignment, data }: DataSource,
  cursor: ByteCursor,
): Steps<ReadonlyMap<string, TensorEntry>> {
  const sorted = yield* sortSteps(tensors, (a, b) => a.begin - b.begin || a.end - b.end);
  const entries = new Map<string, TensorEntry>();
  let previous: Located | undefined;
  for (const tensor of sorted) {
    const { name, type, shape, begin, end } = tensor;
    if (begin % alignment !== 0)
      throw cursor.error(
        `tensor ${quote(name)} begins at offset ${begin}, no multiple of the alignment (${alignment}).`,
      );
    if (data + end > fileSize && end > begin) {
      const message = `tensor ${quote(name)} ends at byte ${data + end}, past the end of the file (${fileSize} bytes)`;
      throw cursor.error(`${message}. The file is truncated.`);
    }
    if (previous && begin < previous.end) {
      const where = `begins at offset ${begin}, inside tensor ${quote(previous.name)}, which ends at ${previous.end}`;
      throw cursor.error(`tensor ${quote(name)} ${where}. The file is damaged.`);
    }
    if (end > begin) previous = tensor;
    entries.set(name, { name, type, shape, file, begin: data + begin, end: data + end });
    yield;
  }
  return entries;
}
