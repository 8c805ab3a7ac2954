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

/** A pair, as a file has it: a key, and text or a whole number from 0 to 2^32 - 1. */
export function encodePair(key: string, value: string | number | boolean): Uint8Array {
  const name = Buffer.from(key);
  const text = typeof value === 'string' ? Buffer.from(value) : undefined;
  const size = text ? 8 + text.length : typeof value === 'boolean' ? 1 : 4;
  const bytes = Buffer.alloc(8 + name.length + 4 + size);
  bytes.writeBigUInt64LE(BigInt(name.length), 0);
  bytes.set(name, 8);
  const at = 8 + name.length;
  bytes.writeUInt32LE(text ? VALUE.string : typeof value === 'boolean' ? VALUE.bool : VALUE.u32, at);
  if (text) {
    bytes.writeBigUInt64LE(BigInt(text.length), at + 4);
    bytes.set(text, at + 12);
  } else if (typeof value === 'boolean') bytes[at + 4] = value ? 1 : 0;
  else bytes.writeUInt32LE(value as number, at + 4);
  return bytes;
}
