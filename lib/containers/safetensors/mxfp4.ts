import { plural } from '../../messages/units.js';
import type { TensorEntry, TensorPart } from '../container.js';
import type { NumberSource } from '../rounding.js';
import { storedType } from '../stored-types.js';

// Stacks of experts in MXFP4, as gpt-oss has them: `X_blocks` U8 [experts, out, in / 32, 16], each byte two numbers of four bits, the lower
// ones first, and `X_scales` U8 [experts, out, in / 32], powers of two. They are read as the bfloat16 numbers that these are, exactly:
// one tensor X [experts, in, out], as the same models have that are not quantized.

/** Numbers that share a scale, and bytes that hold them. */
const GROUP = 32;
const GROUP_BYTES = GROUP / 2;

/** Largest expert that is kept in memory to be turned. Those of gpt-oss have 8 MB. */
const MOST_EXPERT_BYTES = 64 * 1024 * 1024;

/** Experts that are kept: what copies a tensor reads a few parts of it side by side. */
const KEPT = 2;

/** Bytes of codes that are read at once. */
const SPAN_BYTES = 1024 * 1024;

/** E2M1: a sign, two bits of exponent, one of fraction. */
const NUMBERS = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];

/** A stack of experts in MXFP4. */
export interface Mxfp4Tensor {
  readonly blocks: TensorEntry;
  readonly scales: TensorEntry;
}

type Members = Readonly<Record<string, unknown>>;

/**
 * The tensors of a model with experts in MXFP4 as the numbers that they are; undefined for what is none, or not wholly. Trusts nothing
 * that is said.
 */
export function mxfp4Of(entries: ReadonlyMap<string, TensorEntry>, config: Members | undefined) {
  const said = config?.quantization_config;
  if (typeof said !== 'object' || said === null || (said as Members).quant_method !== 'mxfp4') return undefined;
  const tensors = new Map<string, Mxfp4Tensor>();
  const read = new Map<string, TensorEntry>();
  for (const entry of entries.values()) {
    const { name, type, shape, file, begin } = entry;
    const stack = /^(.+)_(blocks|scales)$/.exec(name);
    if (stack === null || type.name !== 'U8') {
      read.set(name, entry);
      continue;
    }
    const called = stack[1]!;
    const [blocks, scales] = [entries.get(`${called}_blocks`), entries.get(`${called}_scales`)];
    if (blocks === undefined || scales === undefined || entries.has(called)) return undefined;
    if (stack[2] === 'scales') continue;
    const [experts = 0, outs = 0, groups = 0, bytes] = shape;
    const fits = shape.length === 4 && bytes === GROUP_BYTES && String(scales.shape) === String(shape.slice(0, 3));
    const size = experts * outs * groups * GROUP * 2;
    if (!fits || scales.type.name !== 'U8' || size === 0 || outs * groups * GROUP_BYTES > MOST_EXPERT_BYTES) {
      return undefined;
    }
    tensors.set(called, { blocks, scales });
    const bfloat16 = storedType('BF16');
    read.set(called, {
      ...{ name: called, type: bfloat16, shape: [experts, groups * GROUP, outs], file, begin, end: begin + size },
      expertsLie: 'out-in',
    });
  }
  return tensors.size === 0 ? undefined : { entries: read, tensors, reader: new Mxfp4Reader(tensors) };
}

/** What people should know of such a model. */
export function mxfp4Origin(tensors: ReadonlyMap<string, Mxfp4Tensor>): string {
  const what = `${plural(tensors.size, 'stack')} of experts ${tensors.size === 1 ? 'was' : 'were'} MXFP4`;
  return `${what}: read as the bfloat16 numbers that they are, which those that are not quantized stay.`;
}

/** The bits of each number times each scale, as bfloat16: exact but for those beyond it, which become infinite. Scale 255 is none. */
function numbersAsBits(): Uint16Array {
  const bits = new Uint16Array(256 * 16);
  const value = new Float32Array(1);
  const word = new Uint32Array(value.buffer);
  for (let scale = 0; scale < 256; scale++) {
    for (let code = 0; code < 16; code++) {
      value[0] = scale === 255 ? Number.NaN : NUMBERS[code]! * 2 ** (scale - 127);
      bits[scale * 16 + code] = word[0]! >>> 16;
    }
  }
  return bits;
}

type Read<T> = (entry: TensorEntry, at: number, into: Uint8Array) => T;

/** Rows of an expert: codes and scales of each. */
interface Rows {
  readonly codes: Uint8Array;
  readonly scales: Uint8Array;
}

/** Reads such tensors as bfloat16. */
export class Mxfp4Reader {
  readonly #tensors: ReadonlyMap<string, Mxfp4Tensor>;
  readonly #kept = new Map<string, Promise<Rows>>();
  #bits: Uint16Array | undefined;

  constructor(tensors: ReadonlyMap<string, Mxfp4Tensor>) {
    this.#tensors = tensors;
  }

  of({ name, part }: TensorEntry): Mxfp4Tensor | undefined {
    return this.#tensors.get(part?.of ?? name);
  }

  /** Fills `into` with bytes of the numbers, from byte `at` of the tensor, or of the part of it. */
  async read(
    tensor: Mxfp4Tensor,
    part: TensorPart | undefined,
    at: number,
    into: Uint8Array,
    source: NumberSource,
    signal?: AbortSignal,
  ): Promise<void> {
    const read: Read<Promise<void>> = (entry, from, to) => source.read(entry, from, to, signal);
    const whole = wholeNumbers(at, into);
    if (whole) {
      await this.read(tensor, part, at - whole.skip, whole.bytes, source, signal);
      into.set(whole.bytes.subarray(whole.skip, whole.skip + into.length));
      return;
    }
    if (part?.rows) {
      for (const piece of piecesOf(tensor, part.rows, at, into)) {
        await Promise.all([
          read(tensor.blocks, piece.row * piece.cols, piece.rows.codes),
          read(tensor.scales, (piece.row * piece.cols) / GROUP_BYTES, piece.rows.scales),
        ]);
        this.#take(piece, into);
      }
      return;
    }
    for (const { expert, from, to } of expertsOf(tensor, at, into)) {
      this.#turn(tensor, await this.#expert(tensor, expert, read), from, to);
    }
  }

  /** Blocking twin of `read`. */
  readSync(tensor: Mxfp4Tensor, part: TensorPart | undefined, at: number, into: Uint8Array, read: Read<void>): void {
    const whole = wholeNumbers(at, into);
    if (whole) {
      this.readSync(tensor, part, at - whole.skip, whole.bytes, read);
      into.set(whole.bytes.subarray(whole.skip, whole.skip + into.length));
      return;
    }
    if (part?.rows) {
      for (const piece of piecesOf(tensor, part.rows, at, into)) {
        read(tensor.blocks, piece.row * piece.cols, piece.rows.codes);
        read(tensor.scales, (piece.row * piece.cols) / GROUP_BYTES, piece.rows.scales);
        this.#take(piece, into);
      }
      return;
    }
    for (const { expert, from, to } of expertsOf(tensor, at, into)) {
      const rows = rowsFor(tensor);
      read(tensor.blocks, expert * rows.codes.length, rows.codes);
      read(tensor.scales, expert * rows.scales.length, rows.scales);
      this.#turn(tensor, rows, from, to);
    }
  }

  /** A whole expert: what is written next to each other of it lies all over it. */
  #expert(tensor: Mxfp4Tensor, expert: number, read: Read<Promise<void>>): Promise<Rows> {
    const key = `${expert} ${tensor.blocks.name}`;
    const known = this.#kept.get(key);
    if (known) return known;
    if (this.#kept.size >= KEPT) this.#kept.delete(this.#kept.keys().next().value!);
    const rows = rowsFor(tensor);
    const reading = Promise.all([
      read(tensor.blocks, expert * rows.codes.length, rows.codes),
      read(tensor.scales, expert * rows.scales.length, rows.scales),
    ]).then(
      () => rows,
      (error: unknown) => {
        this.#kept.delete(key); // who reads next may have better luck
        throw error;
      },
    );
    this.#kept.set(key, reading);
    return reading;
  }

  #numbers(): Uint16Array {
    this.#bits ??= numbersAsBits();
    return this.#bits;
  }

  /** Bytes of `[in, out]` from byte `from` on, of an expert. */
  #turn({ blocks }: Mxfp4Tensor, { codes, scales }: Rows, from: number, to: Uint8Array): void {
    const bits = this.#numbers();
    const [, outs, groups] = blocks.shape as [number, number, number];
    const first = from >> 1;
    for (let i = 0; i < to.length / 2; i++) {
      const [input, out] = [Math.floor((first + i) / outs), (first + i) % outs];
      const byte = codes[out * groups * GROUP_BYTES + (input >> 1)]!;
      const code = input & 1 ? byte >> 4 : byte & 15;
      const value = bits[scales[out * groups + (input >> 5)]! * 16 + code]!;
      to[2 * i] = value;
      to[2 * i + 1] = value >> 8;
    }
  }

  /** Numbers of some rows, each as long as an expert's inputs. */
  #take({ rows: { codes, scales }, step, cols, from, count, to }: Piece, into: Uint8Array): void {
    const bits = this.#numbers();
    const ins = 2 * cols;
    for (let i = 0; i < count; i++) {
      const row = Math.floor((from + i) / ins) * step;
      const input = (from + i) % ins;
      const byte = codes[row * cols + (input >> 1)]!;
      const code = input & 1 ? byte >> 4 : byte & 15;
      const value = bits[scales[(row * cols) / GROUP_BYTES + (input >> 5)]! * 16 + code]!;
      into[to + 2 * i] = value;
      into[to + 2 * i + 1] = value >> 8;
    }
  }
}

/** Room for the numbers that bytes are of, which begin or end within one; undefined where they do not. */
function wholeNumbers(at: number, into: Uint8Array): { readonly skip: number; readonly bytes: Uint8Array } | undefined {
  const skip = at & 1;
  return skip === 0 && into.length % 2 === 0
    ? undefined
    : { skip, bytes: new Uint8Array(2 * Math.ceil((skip + into.length) / 2)) };
}

function rowsFor({ blocks }: Mxfp4Tensor): Rows {
  const [, outs, groups] = blocks.shape as [number, number, number];
  return { codes: new Uint8Array(outs * groups * GROUP_BYTES), scales: new Uint8Array(outs * groups) };
}

/** Bytes of a tensor from byte `at` on, expert by expert. */
function* expertsOf({ blocks }: Mxfp4Tensor, at: number, into: Uint8Array) {
  const [, outs, groups] = blocks.shape as [number, number, number];
  const size = outs * groups * GROUP * 2;
  for (let done = 0; done < into.length; ) {
    const expert = Math.floor((at + done) / size);
    const from = (at + done) % size;
    const length = Math.min(size - from, into.length - done);
    yield { expert, from, to: into.subarray(done, done + length) };
    done += length;
  }
}

interface Piece {
  /** The first row that is read, of all experts. */
  readonly row: number;
  /** Bytes of codes of a row. */
  readonly cols: number;
  readonly step: number;
  readonly rows: Rows;
  /** Of its numbers, from the first of the row on, `count` from `from` go to byte `to`. */
  readonly from: number;
  readonly count: number;
  readonly to: number;
}

/** Bytes of rows `first`, `first + step` and so on, from byte `at` of these on, some rows at once. */
function* piecesOf(
  { blocks }: Mxfp4Tensor,
  { first, step }: NonNullable<TensorPart['rows']>,
  at: number,
  into: Uint8Array,
): Generator<Piece> {
  const cols = blocks.shape[2]! * GROUP_BYTES;
  const ins = 2 * cols;
  const most = Math.max(1, Math.floor(SPAN_BYTES / (cols * step)));
  const end = (at + into.length) / 2;
  for (let element = at / 2; element < end; ) {
    const row = Math.floor(element / ins);
    const last = Math.min(Math.ceil(end / ins), row + most);
    const count = Math.min(end, last * ins) - element;
    const height = (last - row - 1) * step + 1;
    const rows = { codes: new Uint8Array(height * cols), scales: new Uint8Array((height * cols) / GROUP_BYTES) };
    const to = 2 * element - at;
    yield { row: first + row * step, cols, step, rows, from: element - row * ins, count, to };
    element += count;
  }
}
