// ggml's block types: a block is codes of some weights, in sub-blocks that have a scale, and some a minimum, of their own.
// native/core/block_types.h is the same table.

/**
 * Where bits of some values lie: value `i` has `bits` bits, from bit `at` of it on, in byte `offset + run * floor(i / period) + i % run`,
 * shifted by `bits * floor(i % period / run)`; `period` is `run * 8 / bits`.
 */
export interface BlockBits {
  readonly offset: number;
  readonly bits: 1 | 2 | 4 | 8;
  readonly run: number;
  readonly at: number;
}

export interface BlockType {
  /** Place in the list, by which backends know it. */
  readonly id: number;
  /** As ggml spells it. */
  readonly name: string;
  /** Bits of a code. */
  readonly nbits: 2 | 3 | 4 | 5 | 6 | 8;
  /** Weights and bytes of a block, and weights of a sub-block. */
  readonly weights: number;
  readonly bytes: number;
  readonly sub: number;
  /** `w = scale * code - minimum`, where there are minima; else `w = scale * code`. */
  readonly minima: boolean;
  /** Codes are places in `CURVE`, whose numbers are multiplied. */
  readonly curved: boolean;
  /** Lowest and highest code, and what is added to one where it is stored. */
  readonly low: number;
  readonly high: number;
  readonly bias: number;
  readonly codes: readonly BlockBits[];
  /** Places of two float16 numbers: what scales are multiples of, and minima (in a block that is one sub-block: the scale, and minus the minimum). */
  readonly d: number;
  readonly m: number;
  /** How the whole numbers lie that scales and minima are; absent where a block is one sub-block. */
  readonly meta?: BlockMeta;
}

interface BlockMeta {
  /** Lowest and highest whole scale, and what is added where it is stored; whole minima begin with 0. */
  readonly low: number;
  readonly high: number;
  readonly bias: number;
  /** Of all scales, then of all minima; or where eight pairs of six bits lie in twelve bytes. */
  readonly bits: readonly BlockBits[] | { readonly pairs: number };
}

/** Nonlinear levels of four-bit codes. */
export const CURVE: readonly number[] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

const at = (offset: number, bits: BlockBits['bits'], run: number, from = 0): BlockBits => ({
  offset,
  bits,
  run,
  at: from,
});
const symmetric = { minima: false, curved: false, m: 0 };
const affine = { minima: true, curved: false, low: 0, bias: 0 };
const curved = { minima: false, curved: true, low: 0, high: 15, bias: 0, m: 0 };
const simple = { weights: 32, sub: 32, d: 0 };
const pairs = { low: 0, high: 63, bias: 0, bits: { pairs: 4 } };

const ROWS: readonly Omit<BlockType, 'id'>[] = [
  { ...symmetric, ...simple, name: 'Q4_0', nbits: 4, bytes: 18, low: -8, high: 7, bias: 8, codes: [at(2, 4, 16)] },
  { ...affine, ...simple, name: 'Q4_1', nbits: 4, bytes: 20, high: 15, codes: [at(4, 4, 16)], m: 2 },
  // biome-ignore format: a row a type
  { ...symmetric, ...simple, name: 'Q5_0', nbits: 5, bytes: 22, low: -16, high: 15, bias: 16, codes: [at(6, 4, 16), at(2, 1, 1, 4)] },
  { ...affine, ...simple, name: 'Q5_1', nbits: 5, bytes: 24, high: 31, codes: [at(8, 4, 16), at(4, 1, 1, 4)], m: 2 },
  { ...symmetric, ...simple, name: 'Q8_0', nbits: 8, bytes: 34, low: -127, high: 127, bias: 0, codes: [at(2, 8, 32)] },
  {
    ...{
      ...affine,
      name: 'Q2_K',
      nbits: 2,
      weights: 256,
      bytes: 84,
      sub: 16,
      high: 3,
      codes: [at(16, 2, 32)],
      d: 80,
      m: 82,
    },
    meta: { low: 0, high: 15, bias: 0, bits: [at(0, 4, 16)] },
  },
  {
    ...{ ...symmetric, name: 'Q3_K', nbits: 3, weights: 256, bytes: 110, sub: 16, low: -4, high: 3, bias: 4 },
    ...{ codes: [at(32, 2, 32), at(0, 1, 32, 2)], d: 108 },
    meta: { low: -32, high: 31, bias: 32, bits: [at(96, 4, 8), at(104, 2, 4, 4)] },
  },
  {
    ...{
      ...affine,
      name: 'Q4_K',
      nbits: 4,
      weights: 256,
      bytes: 144,
      sub: 32,
      high: 15,
      codes: [at(16, 4, 32)],
      d: 0,
      m: 2,
    },
    meta: pairs,
  },
  {
    ...{ ...affine, name: 'Q5_K', nbits: 5, weights: 256, bytes: 176, sub: 32, high: 31, d: 0, m: 2 },
    ...{ codes: [at(48, 4, 32), at(16, 1, 32, 4)], meta: pairs },
  },
  {
    ...{ ...symmetric, name: 'Q6_K', nbits: 6, weights: 256, bytes: 210, sub: 16, low: -32, high: 31, bias: 32 },
    ...{ codes: [at(0, 4, 64), at(128, 2, 32, 4)], d: 208 },
    meta: { low: -127, high: 127, bias: 0, bits: [at(192, 8, 16)] },
  },
  { ...curved, ...simple, name: 'IQ4_NL', nbits: 4, bytes: 18, codes: [at(2, 4, 16)] },
  {
    ...{ ...curved, name: 'IQ4_XS', nbits: 4, weights: 256, bytes: 136, sub: 32, codes: [at(8, 4, 16)], d: 0 },
    meta: { low: -32, high: 31, bias: 32, bits: [at(4, 4, 1), at(2, 2, 1, 4)] },
  },
];

/** In the order of their ids. */
export const BLOCK_TYPES: readonly BlockType[] = ROWS.map((row, id) => Object.freeze({ ...row, id }));

/** The block type of this name; undefined for what is none. */
export function blockType(name: string): BlockType | undefined {
  return BLOCK_TYPES.find((type) => type.name === name);
}

/** Sub-blocks of a block. */
export function subsOf({ weights, sub }: BlockType): number {
  return weights / sub;
}
