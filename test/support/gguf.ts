// GGUF files, written by the tests' own few lines and not by the code under test.

export type GgufPair = readonly [key: string, type: PairType, value: unknown];
type PairType = 'u8' | 'u32' | 'i32' | 'f32' | 'bool' | 'string' | 'u64' | 'strings' | 'f32s' | 'i32s' | 'nested';

const NUMBERS: Readonly<Record<string, number>> = {
  u8: 0,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
};

export const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
export const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return bytes;
};
export const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

function valueBytes(type: PairType, value: unknown): Buffer {
  const f32 = (one: unknown) => Buffer.from(new Float32Array([one as number]).buffer);
  const list = (of: number, encode: (one: unknown) => Buffer) =>
    Buffer.concat([u32(of), u64((value as unknown[]).length), ...(value as unknown[]).map(encode)]);
  switch (type) {
    case 'u8':
    case 'bool':
      return Buffer.from([Number(value)]);
    case 'u32':
    case 'i32':
      return u32(value as number);
    case 'f32':
      return f32(value);
    case 'u64':
      return u64(value as number);
    case 'string':
      return text(value as string);
    case 'strings':
      return list(8, (one) => text(one as string));
    case 'f32s':
      return list(6, f32);
    case 'i32s':
      return list(5, (one) => u32(one as number));
    case 'nested':
      return list(9, (one) => Buffer.concat([u32(4), u64((one as number[]).length), ...(one as number[]).map(u32)]));
  }
}

const ARRAYS = ['strings', 'f32s', 'i32s', 'nested'];

/** A pair as a file has it. */
export function pairBytes([key, type, value]: GgufPair): Buffer {
  const id = ARRAYS.includes(type) ? NUMBERS.array! : NUMBERS[type]!;
  return Buffer.concat([text(key), u32(id), valueBytes(type, value)]);
}

export interface GgufTensor {
  readonly name: string;
  /** ggml's number. */
  readonly type: number;
  /** As others have it, outermost first. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

const padded = (length: number, alignment: number) => Math.ceil(length / alignment) * alignment;

/** A whole file. */
export function ggufFile(pairs: readonly GgufPair[], tensors: readonly GgufTensor[], alignment = 32): Buffer {
  const parts: Buffer[] = [
    Buffer.from('GGUF'),
    u32(3),
    u64(tensors.length),
    u64(pairs.length),
    ...pairs.map(pairBytes),
  ];
  let offset = 0;
  for (const { name, type, shape, bytes } of tensors) {
    parts.push(text(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(type), u64(offset));
    offset += padded(bytes.byteLength, alignment);
  }
  const head = Buffer.concat(parts);
  const fill = (bytes: Uint8Array) =>
    Buffer.concat([bytes, Buffer.alloc(padded(bytes.byteLength, alignment) - bytes.byteLength)]);
  return Buffer.concat([fill(head), ...tensors.map(({ bytes }) => fill(bytes))]);
}

/** float32 numbers as a tensor. */
export function floatTensor(name: string, shape: readonly number[], values: ArrayLike<number>): GgufTensor {
  return { name, type: 0, shape, bytes: new Uint8Array(Float32Array.from(values).buffer) };
}
