import type { DecodeBlocksArgs, SplitBlocksArgs } from '../../../../binding.js';
import { BLOCK_TYPES, type BlockType, CURVE, subsOf } from '../../../matrix/block-types.js';
import { floatOfHalf } from '../lanes.js';
import type { Units } from '../slices.js';
import { type BlockParts, newParts, unpackBlock } from './bytes.js';

// The twin of the decoders in native/core/blocks.cc.

const f = Math.fround;

/** Weights after which the event loop may have its turn. */
const TURN_WEIGHTS = 8192;

/** A stored code as the number that scales multiply. */
function numberOf(type: BlockType, code: number): number {
  if (type.curved) return CURVE[code & 15]!;
  return type.codes[0]!.bits === 8 ? (code << 24) >> 24 : code - type.bias;
}

function scaleOf(type: BlockType, parts: BlockParts, sub: number): number {
  return type.meta === undefined ? floatOfHalf(parts.d) : f(floatOfHalf(parts.d) * parts.metas[sub]!);
}

function minimumOf(type: BlockType, parts: BlockParts, sub: number): number {
  if (!type.minima) return 0;
  if (type.meta === undefined) return -floatOfHalf(parts.m);
  return f(floatOfHalf(parts.m) * parts.metas[subsOf(type) + sub]!);
}

/** The numbers of a block, from place `at` of `out` on. */
export function decodeOne(type: BlockType, block: Uint8Array, parts: BlockParts, out: Float32Array, at: number): void {
  unpackBlock(type, block, parts);
  for (let sub = 0, i = 0; sub < subsOf(type); sub++) {
    const scale = scaleOf(type, parts, sub);
    const minimum = minimumOf(type, parts, sub);
    for (const end = i + type.sub; i < end; i++) out[at + i] = f(f(scale * numberOf(type, parts.codes[i]!)) - minimum);
  }
}

export function* decodeBlocks({ type: id, blocks, out }: DecodeBlocksArgs): Units {
  const type = BLOCK_TYPES[id]!;
  const parts = newParts(type);
  for (let at = 0, from = 0; at < out.length; at += type.weights, from += type.bytes) {
    decodeOne(type, blocks.subarray(from, from + type.bytes), parts, out, at);
    if (at % TURN_WEIGHTS === 0) yield;
  }
}

export function* splitBlocks({ type: id, blocks, codes, scale, zero }: SplitBlocksArgs): Units {
  const type = BLOCK_TYPES[id]!;
  const parts = newParts(type);
  const first = type.curved || type.codes[0]!.bits === 8 ? -128 : -type.bias;
  const subs = subsOf(type);
  for (let at = 0, from = 0, group = 0; at < codes.length; at += type.weights, from += type.bytes, group += subs) {
    unpackBlock(type, blocks.subarray(from, from + type.bytes), parts);
    for (let sub = 0, i = 0; sub < subs; sub++) {
      const own = scaleOf(type, parts, sub);
      const minimum = minimumOf(type, parts, sub);
      const flat = own === 0;
      scale[group + sub] = flat ? 1 : own;
      zero[group + sub] = flat ? minimum : f(f(minimum / own) - first);
      for (const end = i + type.sub; i < end; i++) codes[at + i] = flat ? 0 : numberOf(type, parts.codes[i]!) - first;
    }
    if (at % TURN_WEIGHTS === 0) yield;
  }
}
