import { type BlockBits, type BlockType, subsOf } from '../../../matrix/block-types.js';

// The twin of native/core/block_bytes.h.

/** What a block says: codes as they are stored, whole scales, then whole minima, and two float16 numbers. */
export interface BlockParts {
  readonly codes: Uint8Array;
  readonly metas: Int32Array;
  d: number;
  m: number;
}

export function newParts({ weights }: BlockType): BlockParts {
  return { codes: new Uint8Array(weights), metas: new Int32Array(32), d: 0, m: 0 };
}

/** Calls `each` with the place of every value, of its byte and its shift. */
function forBits(
  { offset, bits, run }: BlockBits,
  count: number,
  each: (i: number, byte: number, shift: number) => void,
) {
  const parts = 8 / bits;
  for (let first = 0, to = offset; first < count; to += run) {
    for (let part = 0; part < parts && first < count; part++, first += run) {
      for (let i = 0; i < run; i++) each(first + i, to + i, part * bits);
    }
  }
}

function putBits(piece: BlockBits, values: Uint8Array, count: number, block: Uint8Array): void {
  const mask = (1 << piece.bits) - 1;
  forBits(piece, count, (i, byte, shift) => {
    block[byte] = block[byte]! | (((values[i]! >> piece.at) & mask) << shift);
  });
}

function takeBits(piece: BlockBits, block: Uint8Array, count: number, values: Uint8Array): void {
  const mask = (1 << piece.bits) - 1;
  forBits(piece, count, (i, byte, shift) => {
    values[i] = values[i]! | (((block[byte]! >> shift) & mask) << piece.at);
  });
}

const metas = new Uint8Array(32);

export function packBlock(type: BlockType, parts: BlockParts, block: Uint8Array): void {
  block.fill(0);
  for (const piece of type.codes) putBits(piece, parts.codes, type.weights, block);
  const half = (at: number, value: number) => {
    block[at] = value & 255;
    block[at + 1] = value >> 8;
  };
  half(type.d, parts.d);
  if (type.minima) half(type.m, parts.m);
  const { meta } = type;
  if (meta === undefined) return;
  const subs = subsOf(type);
  const count = type.minima ? 2 * subs : subs;
  for (let i = 0; i < count; i++) metas[i] = parts.metas[i]! + (i < subs ? meta.bias : 0);
  if (!('pairs' in meta.bits)) {
    for (const piece of meta.bits) putBits(piece, metas, count, block);
    return;
  }
  const at = meta.bits.pairs;
  const upper = (value: number) => (value >> 4) << 6;
  for (let j = 0; j < 4; j++) {
    block[at + j] = metas[j]! | upper(metas[j + 4]!);
    block[at + j + 4] = metas[8 + j]! | upper(metas[12 + j]!);
    block[at + j + 8] = (metas[j + 4]! & 15) | ((metas[12 + j]! & 15) << 4);
  }
}

export function unpackBlock(type: BlockType, block: Uint8Array, parts: BlockParts): void {
  parts.codes.fill(0);
  for (const piece of type.codes) takeBits(piece, block, type.weights, parts.codes);
  const half = (at: number) => block[at]! | (block[at + 1]! << 8);
  parts.d = half(type.d);
  parts.m = type.minima ? half(type.m) : 0;
  const { meta } = type;
  if (meta === undefined) return;
  const subs = subsOf(type);
  metas.fill(0);
  let signed = false;
  if (!('pairs' in meta.bits)) {
    for (const piece of meta.bits) takeBits(piece, block, type.minima ? 2 * subs : subs, metas);
    signed = meta.bits[0]!.bits === 8;
  } else {
    const at = meta.bits.pairs;
    for (let j = 0; j < 4; j++) {
      const [scales, minima, both] = [block[at + j]!, block[at + j + 4]!, block[at + j + 8]!];
      metas[j] = scales & 63;
      metas[8 + j] = minima & 63;
      metas[4 + j] = (both & 15) | ((scales >> 6) << 4);
      metas[12 + j] = (both >> 4) | ((minima >> 6) << 4);
    }
  }
  for (let i = 0; i < 2 * subs; i++) {
    const value = metas[i]!;
    if (i < subs) parts.metas[i] = (signed ? (value << 24) >> 24 : value) - meta.bias;
    else parts.metas[i] = value;
  }
}
