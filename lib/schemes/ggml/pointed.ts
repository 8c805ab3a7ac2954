import { floatOfHalf } from '../../backend/js/lanes.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import { POINTS } from './points.js';

// Types of ggml's that are read and not written: codes stand for points of several numbers, or for one of three; and floats of four bits. A block is numbers
// of eight bits with a sign, and a scale for each of its sub-blocks: `w = scale * number`, in one rounding, is what ggml gives.

const f = Math.fround;

/** A block of a file, from byte `at` on. */
interface Block {
  readonly bytes: DataView;
  readonly at: number;
}

export interface PointedType {
  readonly name: string;
  /** Bits of a code, rounded up. */
  readonly nbits: 2 | 3 | 4;
  /** Weights and bytes of a block, and weights of a sub-block. */
  readonly weights: number;
  readonly bytes: number;
  readonly sub: number;
  /** The numbers and scales of a block. */
  readonly read: (block: Block, numbers: Int8Array, scales: Float32Array) => void;
}

type Name = keyof typeof POINTS;
const tables = new Map<Name, Int8Array>();

/** The points of a type, one after the other. */
function pointsOf(name: Name): Int8Array {
  const known = tables.get(name);
  if (known !== undefined) return known;
  const { levels, size, points } = POINTS[name];
  const rows = new Uint16Array(new Uint8Array(Buffer.from(points, 'base64')).buffer);
  const bits = 16 / size;
  const table = new Int8Array(rows.length * size);
  for (let i = 0; i < table.length; i++)
    table[i] = levels[(rows[Math.floor(i / size)]! >> ((i % size) * bits)) & ((1 << bits) - 1)]!;
  tables.set(name, table);
  return table;
}

const half = ({ bytes, at }: Block, place = 0) => floatOfHalf(bytes.getUint16(at + place, true));
const nibble = ({ bytes, at }: Block, place: number, i: number) =>
  (bytes.getUint8(at + place + (i >> 1)) >> (4 * (i & 1))) & 15;

/** Seven signs, and the eighth, by which an even number of them is negative. */
function evenSigns(seven: number): number {
  let odd = 0;
  for (let bits = seven; bits > 0; bits >>= 1) odd ^= bits & 1;
  return seven | (odd << 7);
}

/** Writes eight numbers: points `places` of `table`, negative where a bit of `signs` is set. */
function put(table: Int8Array, places: readonly number[], signs: number, numbers: Int8Array, to: number): void {
  const size = 8 / places.length;
  for (let i = 0; i < 8; i++) {
    const number = table[places[Math.floor(i / size)]! * size + (i % size)]!;
    numbers[to + i] = (signs >> i) & 1 ? -number : number;
  }
}

/** Of a scale of four bits and a half. */
const between = (d: number, four: number, share: number) => f(f(d * (0.5 + four)) * share);

function readIq2Xxs(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const { bytes, at } = block;
  const table = pointsOf('IQ2_XXS');
  for (let sub = 0; sub < 8; sub++) {
    const from = at + 2 + 8 * sub;
    const word = bytes.getUint32(from + 4, true);
    scales[sub] = between(half(block), word >>> 28, 0.25);
    for (let k = 0; k < 4; k++)
      put(table, [bytes.getUint8(from + k)], evenSigns((word >>> (7 * k)) & 127), numbers, 32 * sub + 8 * k);
  }
}

function readIq2Xs(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const table = pointsOf('IQ2_XS');
  for (let sub = 0; sub < 16; sub++) scales[sub] = between(half(block), nibble(block, 66, sub), 0.25);
  for (let k = 0; k < 32; k++) {
    const code = block.bytes.getUint16(block.at + 2 + 2 * k, true);
    put(table, [code & 511], evenSigns(code >> 9), numbers, 8 * k);
  }
}

function readIq2S(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const { bytes, at } = block;
  const table = pointsOf('IQ2_S');
  for (let sub = 0; sub < 16; sub++) scales[sub] = between(half(block), nibble(block, 74, sub), 0.25);
  for (let k = 0; k < 32; k++) {
    const high = (bytes.getUint8(at + 66 + (k >> 2)) >> (2 * (k & 3))) & 3;
    put(table, [bytes.getUint8(at + 2 + k) | (high << 8)], bytes.getUint8(at + 34 + k), numbers, 8 * k);
  }
}

function readIq3Xxs(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const { bytes, at } = block;
  const table = pointsOf('IQ3_XXS');
  for (let sub = 0; sub < 8; sub++) {
    const word = bytes.getUint32(at + 66 + 4 * sub, true);
    scales[sub] = between(half(block), word >>> 28, 0.5);
    for (let k = 0; k < 4; k++) {
      const from = at + 2 + 8 * sub + 2 * k;
      const places = [bytes.getUint8(from), bytes.getUint8(from + 1)];
      put(table, places, evenSigns((word >>> (7 * k)) & 127), numbers, 32 * sub + 8 * k);
    }
  }
}

function readIq3S(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const { bytes, at } = block;
  const table = pointsOf('IQ3_S');
  for (let sub = 0; sub < 8; sub++) scales[sub] = half(block) * (1 + 2 * nibble(block, 106, sub));
  for (let k = 0; k < 32; k++) {
    const high = bytes.getUint8(at + 66 + (k >> 2)) >> (2 * (k & 3));
    const places = [
      bytes.getUint8(at + 2 + 2 * k) | ((high & 1) << 8),
      bytes.getUint8(at + 3 + 2 * k) | ((high & 2) << 7),
    ];
    put(table, places, bytes.getUint8(at + 74 + k), numbers, 8 * k);
  }
}

/** `scale * (point + 1/8)`, or minus that eighth: numbers are of eighths. */
function putShifted(table: Int8Array, place: number, down: boolean, numbers: Int8Array, to: number): void {
  for (let i = 0; i < 8; i++) numbers[to + i] = 8 * table[place * 8 + i]! + (down ? -1 : 1);
}

function readIq1S(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const { bytes, at } = block;
  const table = pointsOf('IQ1_S');
  for (let sub = 0; sub < 8; sub++) {
    const word = bytes.getUint16(at + 34 + 2 * sub, true);
    scales[sub] = f(half(block) * (2 * ((word >> 12) & 7) + 1)) / 8;
    for (let k = 0; k < 4; k++) {
      const place = bytes.getUint8(at + 2 + 4 * sub + k) | (((word >> (3 * k)) & 7) << 8);
      putShifted(table, place, word >= 0x8000, numbers, 32 * sub + 8 * k);
    }
  }
}

function readIq1M(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const { bytes, at } = block;
  const table = pointsOf('IQ1_S');
  const word = (i: number) => bytes.getUint16(at + 48 + 2 * i, true);
  let bits = 0;
  for (let i = 0; i < 4; i++) bits |= (word(i) >> 12) << (4 * i);
  const d = floatOfHalf(bits);
  for (let sub = 0; sub < 16; sub++) {
    scales[sub] = f(d * (2 * ((word(sub >> 2) >> (3 * (sub & 3))) & 7) + 1)) / 8;
    for (let k = 2 * sub; k < 2 * sub + 2; k++) {
      const high = nibble(block, 32, k);
      putShifted(table, bytes.getUint8(at + k) | ((high & 7) << 8), high >= 8, numbers, 8 * k);
    }
  }
}

/** Five numbers of three in a byte: its product with 3, 9, ... has each on top. */
function readTq1(block: Block, numbers: Int8Array, scales: Float32Array): void {
  const { bytes, at } = block;
  let to = 0;
  for (const [from, run, count] of [
    [0, 32, 5],
    [32, 16, 5],
    [48, 4, 4],
  ] as const) {
    for (let k = 0, power = 1; k < count; k++, power *= 3)
      for (let i = 0; i < run; i++) numbers[to++] = ((((bytes.getUint8(at + from + i) * power) & 255) * 3) >> 8) - 1;
  }
  scales.fill(half(block, 52));
}

function readTq2(block: Block, numbers: Int8Array, scales: Float32Array): void {
  for (let i = 0; i < 256; i++) {
    const byte = block.bytes.getUint8(block.at + 32 * (i >> 7) + (i & 31));
    numbers[i] = ((byte >> (2 * ((i >> 5) & 3))) & 3) - 1;
  }
  scales.fill(half(block, 64));
}

/** Twice the numbers of E2M1. */
const E2M1 = [0, 1, 2, 3, 4, 6, 8, 12];
const e2m1 = (code: number) => (code & 8 ? -E2M1[code & 7]! : E2M1[code & 7]!);

function readMxfp4({ bytes, at }: Block, numbers: Int8Array, scales: Float32Array): void {
  for (let i = 0; i < 32; i++) numbers[i] = e2m1(bytes.getUint8(at + 1 + (i & 15)) >> (4 * (i >> 4)));
  scales[0] = 2 ** (bytes.getUint8(at) - 128);
}

/** Four scales of E4M3, one per sixteen weights. */
function readNvfp4({ bytes, at }: Block, numbers: Int8Array, scales: Float32Array): void {
  for (let sub = 0; sub < 4; sub++) {
    const code = bytes.getUint8(at + sub);
    const [power, fraction] = [(code >> 3) & 15, code & 7];
    const value = power === 0 ? fraction * 2 ** -9 : (1 + fraction / 8) * 2 ** (power - 7);
    scales[sub] = code === 127 ? 0 : value / 2;
    for (let i = 0; i < 16; i++)
      numbers[16 * sub + i] = e2m1(bytes.getUint8(at + 4 + 8 * sub + (i & 7)) >> (i & 8 ? 4 : 0));
  }
}

const big = { weights: 256, sub: 32 } as const;
const fine = { weights: 256, sub: 16 } as const;

/** By their names. */
const POINTED: ReadonlyMap<string, PointedType> = new Map(
  (
    [
      { ...big, name: 'IQ1_S', nbits: 2, bytes: 50, read: readIq1S },
      { ...fine, name: 'IQ1_M', nbits: 2, bytes: 56, read: readIq1M },
      { ...big, name: 'IQ2_XXS', nbits: 2, bytes: 66, read: readIq2Xxs },
      { ...fine, name: 'IQ2_XS', nbits: 2, bytes: 74, read: readIq2Xs },
      { ...fine, name: 'IQ2_S', nbits: 2, bytes: 82, read: readIq2S },
      { ...big, name: 'IQ3_XXS', nbits: 3, bytes: 98, read: readIq3Xxs },
      { ...big, name: 'IQ3_S', nbits: 3, bytes: 110, read: readIq3S },
      { ...big, name: 'TQ1_0', nbits: 2, bytes: 54, read: readTq1 },
      { ...big, name: 'TQ2_0', nbits: 2, bytes: 66, read: readTq2 },
      { weights: 32, sub: 32, name: 'MXFP4', nbits: 4, bytes: 17, read: readMxfp4 },
      { weights: 64, sub: 16, name: 'NVFP4', nbits: 4, bytes: 36, read: readNvfp4 },
    ] as const
  ).map((type) => [type.name, type]),
);

/** The type of this name; undefined for what is none. */
export function pointedType(name: string): PointedType | undefined {
  return POINTED.get(name);
}

const viewOf = ({ buffer, byteOffset, byteLength }: Uint8Array) => new DataView(buffer, byteOffset, byteLength);

/** Calls `each` with every block's numbers and scales, and its place among the blocks. */
function* eachBlock(
  { weights, bytes, sub, read }: PointedType,
  blocks: Uint8Array,
  each: (numbers: Int8Array, scales: Float32Array, block: number) => void,
): Steps<void> {
  const view = viewOf(blocks);
  const [numbers, scales] = [new Int8Array(weights), new Float32Array(weights / sub)];
  for (let at = 0, block = 0; at < blocks.length; at += bytes, block++) {
    read({ bytes: view, at }, numbers, scales);
    each(numbers, scales, block);
    if (block % 16 === 0) yield;
  }
}

/** The weights that blocks are. */
export function decodePointed(type: PointedType, blocks: Uint8Array, out: Float32Array): Promise<void> {
  return inTurns(
    eachBlock(type, blocks, (numbers, scales, block) => {
      const to = block * type.weights;
      for (let i = 0; i < numbers.length; i++) out[to + i] = scales[Math.floor(i / type.sub)]! * numbers[i]!;
    }),
  );
}

/** The code of 0 where numbers are codes from 0 on. */
export const POINTED_ZERO = 128;

/** The same as codes from 0 on, and a scale for each sub-block. */
export function splitPointed(
  type: PointedType,
  blocks: Uint8Array,
  codes: Uint8Array,
  scale: Float32Array,
): Steps<void> {
  return eachBlock(type, blocks, (numbers, scales, block) => {
    const to = block * type.weights;
    for (let i = 0; i < numbers.length; i++) codes[to + i] = numbers[i]! + POINTED_ZERO;
    scale.set(scales, block * scales.length);
  });
}
