import { atOnce, type Steps } from '../../files/event-loop.js';
import { JsonReader } from '../../files/json.js';
import { formatError, quote } from '../../messages/text.js';
import type { TensorEntry } from '../container.js';
import { bitsOfType, type StoredType, storedType } from '../stored-types.js';

/**
 * Largest header that is read or written. The format allows 100 MB; a 70B model has less than 2 MB, quantized with nineteen
 * keys a layer less than 20. A header claims its own size: a hostile one must not cost more than some 200 MB of memory.
 */
export const MAX_HEADER_BYTES = 32 * 1024 * 1024;

/**
 * Most tensors of a file. Real ones, with names of fifty letters and more, meet the limit of the header before; with names of one
 * letter 32 MB would be 600,000 tensors, and each costs half a kilobyte by the time that a command has looked at it.
 */
export const MAX_TENSORS = 262_144;

/** Most dimensions of a tensor, as in NumPy and PyTorch. A shape of millions of ones would otherwise be free to claim. */
export const MAX_DIMENSIONS = 64;

/** Most entries of `__metadata__`. Real files have a few, training tools write a hundred; each costs ten times its text. */
export const MAX_METADATA_ENTRIES = 65_536;

/** Bytes of the little-endian header length that every file begins with. */
export const LENGTH_BYTES = 8;

/** The types that the format names. */
const DTYPES: ReadonlyMap<string, StoredType> = new Map(
  // biome-ignore format: a list
  ('C64 F64 I64 U64 F32 I32 U32 F16 BF16 I16 U16 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I8 U8 BOOL F6_E2M3 F6_E3M2 F4')
    .split(' ')
    .map((name) => [name, storedType(name)]),
);

const DTYPE_NAMES = [...DTYPES.keys()].join(', ');

/** What a header says: tensors in the order of their bytes, without gaps from the header to the end of the file. */
export interface Header {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** The file that a header belongs to. */
interface HeaderSource {
  /** Name, as entries say it. */
  readonly file: string;
  /** As messages show it: two models have a model.safetensors each. Default: its name. */
  readonly path?: string | undefined;
  /** Bytes in all. */
  readonly fileSize: number;
}

/** Whether the format has a name for a type. */
export function isKnown({ name }: StoredType): boolean {
  return DTYPES.has(name);
}

/**
 * Bytes of a tensor; NaN if they cannot be counted exactly or do not fill the last byte. Dimensions of 0 do not excuse the
 * others: code that multiplies them in another order must not overflow.
 */
export function tensorBytes(shape: readonly number[], bits: number): number {
  const widest = shape.reduce((product, size) => product * (size || 1), bits);
  if (widest > Number.MAX_SAFE_INTEGER) return Number.NaN;
  const size = shape.includes(0) ? 0 : widest / 8;
  return Number.isInteger(size) ? size : Number.NaN;
}

/** Length of the JSON that follows the first eight bytes. */
export function headerLength(prefix: Uint8Array, { file, path = file, fileSize }: HeaderSource): number {
  if (fileSize < LENGTH_BYTES || prefix.byteLength < LENGTH_BYTES) {
    const missing = `expected at least ${LENGTH_BYTES} bytes, got ${fileSize}`;
    throw formatError(path, `${missing}. The file is truncated or not a safetensors file.`);
  }
  // As a BigInt: the field is unsigned and may say anything up to 2^64 - 1.
  const claimed = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (claimed === 0n) {
    throw formatError(
      path,
      'the header claims 0 bytes. The file was not written to its end, or is not a safetensors file.',
    );
  }
  if (claimed > BigInt(fileSize - LENGTH_BYTES)) {
    const message = `the header claims ${claimed} bytes, but the file has ${fileSize}`;
    throw formatError(path, `${message}. ${lookalike(prefix) ?? 'The file is truncated or not a safetensors file.'}`);
  }
  if (claimed > BigInt(MAX_HEADER_BYTES)) {
    const message = `the header claims ${claimed} bytes; at most ${MAX_HEADER_BYTES} are read`;
    const advice = lookalike(prefix) ?? 'This is not a safetensors file, or one made to exhaust memory.';
    throw formatError(path, `${message}. ${advice}`);
  }
  return Number(claimed);
}

/** What a file that is not safetensors is most often. */
function lookalike(prefix: Uint8Array): string | undefined {
  const text = Buffer.from(prefix.subarray(0, LENGTH_BYTES)).toString('latin1');
  if (text === 'version ') return 'It looks like a Git LFS pointer: fetch the file itself with "git lfs pull".';
  if (text.startsWith('GGUF')) return 'It looks like a GGUF file; only safetensors files are read.';
  if (text.startsWith('PK')) return 'It looks like a PyTorch or zip archive; convert it to safetensors first.';
  return text.startsWith('<') ? 'It looks like a web page: the download failed.' : undefined;
}

/** Checks and reads the JSON of a header: `bytes` begin after the eight bytes of length. Trusts nothing. */
export function parseHeader(bytes: Uint8Array, source: HeaderSource): Header {
  return atOnce(headerSteps(bytes, source));
}

/** `parseHeader`, tensor by tensor. */
export function* headerSteps(bytes: Uint8Array, source: HeaderSource): Steps<Header> {
  const { file, path = file, fileSize } = source;
  const dataStart = LENGTH_BYTES + bytes.byteLength;
  if (bytes[0] !== 0x7b) {
    const got = bytes[0] === undefined ? 'nothing' : `byte ${bytes[0]}`;
    throw formatError(path, `expected the header to begin with "{", got ${got}. This is not a safetensors file.`);
  }
  const reader = new JsonReader(bytes, { file: path, what: 'header', offset: LENGTH_BYTES });
  const tensors = new Map<string, TensorEntry>();
  let metadata: ReadonlyMap<string, string> | undefined;
  for (const [name, at] of reader.keys()) {
    if (name === '__metadata__') {
      if (metadata !== undefined) reader.duplicate(name, at);
      metadata = readMetadata(reader, path);
      continue;
    }
    const where = at + LENGTH_BYTES;
    if (name === '')
      throw formatError(path, `expected every tensor to have a name, got an empty one at byte ${where}.`);
    if (tensors.has(name))
      throw formatError(path, `expected every tensor once, got ${quote(name)} again at byte ${where}.`);
    if (tensors.size >= MAX_TENSORS)
      throw formatError(path, `expected at most ${MAX_TENSORS} tensors. Split the model into shards.`);
    tensors.set(name, readEntry(reader, name, { file, path }, dataStart));
    yield;
  }
  reader.end();
  return { tensors: inFileOrder(tensors, path, dataStart, fileSize), metadata: metadata ?? new Map() };
}

function readMetadata(reader: JsonReader, path: string): ReadonlyMap<string, string> {
  const metadata = new Map<string, string>();
  const wrong = (message: string) => formatError(path, `expected "__metadata__" to ${message}.`);
  if (reader.kind() !== 'object') throw wrong('be an object of strings');
  reader.members((key, at) => {
    if (metadata.has(key)) reader.duplicate(key, at);
    if (metadata.size >= MAX_METADATA_ENTRIES) throw wrong(`have at most ${MAX_METADATA_ENTRIES} entries`);
    if (reader.kind() !== 'string') throw wrong(`hold strings, got something else for ${quote(key)}`);
    metadata.set(key, reader.string());
  });
  return metadata;
}

function readEntry(
  reader: JsonReader,
  name: string,
  { file, path }: { readonly file: string; readonly path: string },
  dataStart: number,
): TensorEntry {
  const wrong = (message: string) => formatError(path, `tensor ${quote(name)} ${message}.`);
  let dtype: StoredType | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  const integers = (what: string, most: number): number[] => {
    const values: number[] = [];
    if (reader.kind() !== 'array') throw wrong(`has a ${what} that is not an array`);
    reader.elements((index) => {
      if (index >= most) throw wrong(`has more than ${most} numbers in its ${what}`);
      const value = reader.integer();
      if (Number.isNaN(value))
        throw wrong(`has a ${what} whose number ${index + 1} is not an integer from 0 to 2^53 - 1`);
      values.push(value);
    });
    return values;
  };
  if (reader.kind() !== 'object') throw wrong('is not described by an object with dtype, shape and data_offsets');
  reader.members((key, at) => {
    if (key === 'dtype' && dtype === undefined) {
      if (reader.kind() !== 'string') throw wrong('has a dtype that is not a string');
      const text = reader.string();
      dtype = DTYPES.get(text);
      if (dtype === undefined) throw wrong(`has the unknown dtype ${quote(text)}. Known ones: ${DTYPE_NAMES}`);
    } else if (key === 'shape' && shape === undefined) shape = integers('shape', MAX_DIMENSIONS);
    else if (key === 'data_offsets' && offsets === undefined) offsets = integers('data_offsets', 2);
    else if (key === 'dtype' || key === 'shape' || key === 'data_offsets') reader.duplicate(key, at);
    else throw wrong(`has the unexpected key ${quote(key)}; expected dtype, shape and data_offsets only`);
  });
  if (dtype === undefined) throw wrong('has no dtype');
  if (shape === undefined) throw wrong('has no shape');
  const [begin, end] = offsets ?? [];
  if (begin === undefined || end === undefined)
    throw wrong(`has ${offsets?.length ?? 'no'} data_offsets where 2 are needed`);
  if (begin > end) throw wrong(`has data_offsets that end (${end}) before they begin (${begin})`);
  const bytes = tensorBytes(shape, bitsOfType(dtype));
  const what = `${dtype.name} [${shape.join(', ')}]`;
  if (Number.isNaN(bytes)) throw wrong(`has a size that is too large or not a whole number of bytes: ${what}`);
  if (bytes !== end - begin) throw wrong(`takes ${bytes} bytes as ${what}, but its data_offsets span ${end - begin}`);
  return { name, type: dtype, shape, file, begin: begin + dataStart, end: end + dataStart };
}

/** The tensors sorted by position, which must tile the file from the header to its last byte. */
function inFileOrder(
  tensors: ReadonlyMap<string, TensorEntry>,
  path: string,
  dataStart: number,
  fileSize: number,
): ReadonlyMap<string, TensorEntry> {
  const sorted = [...tensors.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let position = dataStart;
  let previous: TensorEntry | undefined;
  for (const entry of sorted) {
    if (entry.end > fileSize) {
      const message = `tensor ${quote(entry.name)} ends at byte ${entry.end}, past the end of the file (${fileSize} bytes)`;
      throw formatError(path, `${message}. The file is truncated.`);
    }
    if (entry.begin < position) {
      const other = quote(previous?.name ?? '');
      const where = `begins at byte ${entry.begin}, inside tensor ${other}, which ends at byte ${position}`;
      throw formatError(path, `tensor ${quote(entry.name)} ${where}. The file is damaged.`);
    }
    if (entry.begin > position) {
      const hole = `${entry.begin - position} bytes from byte ${position}, before tensor ${quote(entry.name)},`;
      throw formatError(
        path,
        `${hole} belong to no tensor. The format allows no gaps; the file is damaged or hides data.`,
      );
    }
    position = entry.end;
    previous = entry;
  }
  if (position !== fileSize) {
    const message = `the last tensor ends at byte ${position}, but the file has ${fileSize} bytes`;
    throw formatError(path, `${message}. The format allows nothing behind it; the file is damaged or hides data.`);
  }
  let same = true;
  let index = 0;
  for (const entry of tensors.values()) same &&= sorted[index++] === entry;
  return same ? tensors : new Map(sorted.map((entry) => [entry.name, entry]));
}
