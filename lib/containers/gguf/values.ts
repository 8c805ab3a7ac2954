import type { ByteCursor } from './cursor.js';

// The values of a GGUF file's key-value pairs.

/** The types of values, by their numbers in a file. */
export const VALUE = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;

/** Bytes of a value of fixed size, by its type; 0 for strings and arrays. */
export const VALUE_BYTES: readonly number[] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];

/** A number, a truth value, text, or a list of one kind of these. Whole numbers beyond 2^53 are BigInts. */
export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

const DECODERS: Readonly<Record<number, (cursor: ByteCursor) => GgufValue>> = {
  [VALUE.u8]: (cursor) => cursor.view(1).getUint8(0),
  [VALUE.i8]: (cursor) => cursor.view(1).getInt8(0),
  [VALUE.u16]: (cursor) => cursor.view(2).getUint16(0, true),
  [VALUE.i16]: (cursor) => cursor.view(2).getInt16(0, true),
  [VALUE.u32]: (cursor) => cursor.u32(),
  [VALUE.i32]: (cursor) => cursor.view(4).getInt32(0, true),
  [VALUE.f32]: (cursor) => cursor.view(4).getFloat32(0, true),
  [VALUE.bool]: (cursor) => cursor.view(1).getUint8(0) !== 0,
  [VALUE.string]: (cursor) => cursor.text(cursor.u64('a text')),
  [VALUE.u64]: (cursor) => narrow(cursor.view(8).getBigUint64(0, true)),
  [VALUE.i64]: (cursor) => narrow(cursor.view(8).getBigInt64(0, true)),
  [VALUE.f64]: (cursor) => cursor.view(8).getFloat64(0, true),
};

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** The value of `type` that the cursor, which has been over it before, stands at. */
export function decodeValue(cursor: ByteCursor, type: number): GgufValue {
  if (type !== VALUE.array) return DECODERS[type]!(cursor);
  const of = cursor.u32();
  const count = cursor.u64('an array');
  return Array.from({ length: count }, () => decodeValue(cursor, of));
}

/** Types whose values become numbers, whatever they are. */
const NUMBERS: readonly number[] = [
  VALUE.u8,
  VALUE.i8,
  VALUE.u16,
  VALUE.i16,
  VALUE.u32,
  VALUE.i32,
  VALUE.f32,
  VALUE.f64,
];

/** What the list that begins at a byte holds: its elements are not read. */
export function listedType(bytes: Uint8Array, at: number): 'string' | 'number' | 'another' {
  const type = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);
  if (type === VALUE.string) return 'string';
  return NUMBERS.includes(type) ? 'number' : 'another';
}

/** What a list holds, by its type. */
const LISTED = { strings: VALUE.string, f32s: VALUE.f32, i32s: VALUE.i32 } as const;

/** A value that is written: of which type, and what. */
export type WrittenValue =
  | readonly ['u32' | 'f32', number]
  | readonly ['bool', boolean]
  | readonly ['string', string]
  | readonly ['strings', readonly string[]]
  | readonly ['f32s' | 'i32s', readonly number[]];

/** Writes a text with its length in front, which is below 2^32 of any text here. Returns where it ends. */
function writeText(text: string, to: Buffer, at: number): number {
  const length = to.write(text, at + 8);
  to.writeUInt32LE(length, at);
  return at + 8 + length;
}

function textBytes(text: string): Buffer {
  const bytes = Buffer.alloc(8 + Buffer.byteLength(text));
  writeText(text, bytes, 0);
  return bytes;
}

function writeNumber(type: number, value: number, to: Buffer, at: number): number {
  if (type === VALUE.f32) return to.writeFloatLE(value, at);
  return type === VALUE.i32 ? to.writeInt32LE(value, at) : to.writeUInt32LE(value, at);
}

function numberBytes(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  writeNumber(type, value, bytes, 0);
  return bytes;
}

/** A list in one piece of memory: it may be a vocabulary, and an array for each of its words would take many times its bytes. */
function listBytes([type, list]: Extract<WrittenValue, readonly [keyof typeof LISTED, unknown]>): Buffer {
  const of = LISTED[type];
  const size = type === 'strings' ? list.reduce((sum, text) => sum + 8 + Buffer.byteLength(text), 0) : 4 * list.length;
  const bytes = Buffer.alloc(12 + size);
  bytes.writeUInt32LE(of, 0);
  bytes.writeUInt32LE(list.length, 4);
  let at = 12;
  if (type === 'strings') for (const text of list) at = writeText(text, bytes, at);
  else for (const value of list) at = writeNumber(of, value, bytes, at);
  return bytes;
}

/** The number of a value's type, and its bytes. */
function bytesOf(written: WrittenValue): readonly [type: number, bytes: Uint8Array] {
  const [type, value] = written;
  switch (type) {
    case 'u32':
    case 'f32':
      return [VALUE[type], numberBytes(VALUE[type], value)];
    case 'bool':
      return [VALUE.bool, Uint8Array.of(value ? 1 : 0)];
    case 'string':
      return [VALUE.string, textBytes(value)];
    default:
      return [VALUE.array, listBytes(written)];
  }
}

/** A pair, as a file has it: a key, and a value; without its type, text, a truth value, or a whole number from 0 to 2^32 - 1. */
export function encodePair(key: string, value: WrittenValue | string | number | boolean): Uint8Array {
  const written: WrittenValue =
    typeof value === 'string'
      ? ['string', value]
      : typeof value === 'boolean'
        ? ['bool', value]
        : typeof value === 'number'
          ? ['u32', value]
          : value;
  const [type, bytes] = bytesOf(written);
  const head = Buffer.alloc(4);
  head.writeUInt32LE(type);
  return Buffer.concat([textBytes(key), head, bytes]);
}
