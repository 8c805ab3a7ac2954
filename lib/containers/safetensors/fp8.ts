import { plural } from '../../messages/units.js';
import type { TensorEntry } from '../container.js';
import type { NumberSource } from '../rounding.js';
import { numbersOf, storedType } from '../stored-types.js';

// Models that exist in FP8 only: each weight a byte, times a scale of its block, row or matrix. They are read as the float32 numbers that
// these are, part by part, so that all that takes floats takes them.

/** Tools that say so in config.json, in the forms that are known here. */
const METHODS = new Set<unknown>(['fp8', 'fbgemm_fp8', 'compressed-tensors', 'modelopt']);

/** Rows and columns of a block, where nothing says them: DeepSeek's. */
const BLOCK: readonly [number, number] = [128, 128];

/** Numbers that are widened at once. */
const MOST = 128 * 1024;

/** Layers whose scales are kept: chunks of a few are read side by side, and each in many parts. */
const KEPT = 8;

/** A weight of FP8, and what it is multiplied with. */
export interface WidenedTensor {
  readonly codes: TensorEntry;
  readonly scale: TensorEntry;
  /** Rows and columns that have one scale. */
  readonly block: readonly [rows: number, cols: number];
}

/** The tensors of a model as numbers, and those of them that are widened, by name. */
export interface Widened {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly tensors: ReadonlyMap<string, WidenedTensor>;
}

type Members = Readonly<Record<string, unknown>>;

const membersOf = (value: unknown): Members => (typeof value === 'object' && value !== null ? (value as Members) : {});

const isFp8 = ({ type }: TensorEntry) => type.name === 'F8_E4M3' || type.name === 'F8_E5M2';

/**
 * The tensors of a model of FP8 as the numbers that they are; undefined for what is none, or not wholly: then it is what its tensors
 * show, and refused. Trusts nothing that is said.
 */
export function widenedOf(entries: ReadonlyMap<string, TensorEntry>, config: Members | undefined): Widened | undefined {
  const said = membersOf(config?.quantization_config ?? config?.compression_config);
  if (!METHODS.has(said.quant_method)) return undefined;
  const sizes = Array.isArray(said.weight_block_size) ? said.weight_block_size.map(Number) : BLOCK;
  const tensors = new Map<string, WidenedTensor>();
  const gone = new Set<string>();
  for (const codes of entries.values()) {
    if (!isFp8(codes)) continue;
    const { name, shape } = codes;
    if (!name.endsWith('.weight') || shape.length !== 2) return undefined;
    const scale = entries.get(`${name}_scale_inv`) ?? entries.get(`${name}_scale`);
    const block = scale && blockOf(shape as [number, number], scale, sizes);
    if (!block) return undefined;
    tensors.set(name, { codes, scale, block });
    const module = name.slice(0, -'weight'.length);
    for (const other of [scale.name, `${module}input_scale`, `${module}activation_scale`]) gone.add(other);
  }
  const float = storedType('F32');
  const widened = new Map<string, TensorEntry>();
  for (const entry of entries.values()) {
    if (gone.has(entry.name)) continue;
    if (!tensors.has(entry.name)) {
      if (numbersOf(entry.type) === undefined && entry.type.name !== 'I64' && entry.type.name !== 'BOOL')
        return undefined;
      widened.set(entry.name, entry);
      continue;
    }
    const { begin, end } = entry;
    widened.set(entry.name, { ...entry, type: float, end: begin + (end - begin) * float.blockBytes });
  }
  return tensors.size === 0 ? undefined : { entries: widened, tensors };
}

/** Of which block each scale is, by its shape; undefined where it is of none. */
function blockOf(
  [rows, cols]: readonly [number, number],
  { type, shape, begin, end }: TensorEntry,
  [high = 0, wide = 0]: readonly number[],
): WidenedTensor['block'] | undefined {
  if (type.float === undefined || begin === end || rows * cols === 0) return undefined;
  const [first = 1, second = 1] = shape;
  if (shape.length > 2) return undefined;
  if (first === 1 && second === 1) return [rows, cols];
  if (first === rows && second === 1) return [1, cols];
  if (!(Number.isSafeInteger(high) && Number.isSafeInteger(wide) && high > 0 && wide > 0)) return undefined;
  return first === Math.ceil(rows / high) && second === Math.ceil(cols / wide) ? [high, wide] : undefined;
}

/** What people should know of a model that is in FP8. */
export function originOf(tensors: ReadonlyMap<string, WidenedTensor>): string {
  const kinds = new Set<string>();
  for (const { codes, block, scale } of tensors.values()) {
    const [rows, cols] = codes.shape as [number, number];
    const of =
      block[0] === rows && block[1] === cols
        ? 'a matrix'
        : block[1] === cols && block[0] === 1
          ? 'each row'
          : `blocks of ${block[0]} x ${block[1]}`;
    kinds.add(`${codes.type.name} with ${scale.type.name} scales of ${of}`);
  }
  return `${plural(tensors.size, 'weight')} of the model ${tensors.size === 1 ? 'was' : 'were'} FP8 (${[...kinds].slice(0, 4).join(', ')}): read as the float32 numbers that they are, which those that are not quantized stay.`;
}

/** A small float of `exponents` and `fractions` bits: as IEEE has it, or `finite`, without infinities and with one NaN of each sign. */
function smallFloat(bits: number, exponents: number, fractions: number, finite = false): number {
  const sign = (bits >> (exponents + fractions)) & 1 ? -1 : 1;
  const exponent = (bits >> fractions) & (2 ** exponents - 1);
  const rest = bits & (2 ** fractions - 1);
  const least = 2 - 2 ** (exponents - 1);
  if (exponent === 2 ** exponents - 1 && (!finite || rest === 2 ** fractions - 1)) {
    return finite || rest !== 0 ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  }
  if (exponent === 0) return sign * rest * 2 ** (least - fractions);
  return sign * (2 ** fractions + rest) * 2 ** (exponent - 1 + least - fractions);
}

/** The numbers of all bytes of a type of FP8. */
export const fp8Numbers = (type: string): Float32Array =>
  Float32Array.from({ length: 256 }, (_, byte) =>
    type === 'F8_E4M3' ? smallFloat(byte, 4, 3, true) : smallFloat(byte, 5, 2),
  );

/** Scales as numbers. */
function scalesIn(bytes: Uint8Array, type: string): Float32Array {
  if (type === 'F32') return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  return Float32Array.from(halves, (bits) => (type === 'BF16' ? smallFloat(bits, 8, 7) : smallFloat(bits, 5, 10)));
}

/** Reads bytes of a file. */
type Read<T> = (entry: TensorEntry, at: number, into: Uint8Array) => T;

/** Reads weights of FP8 as float32. */
export class Fp8Reader {
  readonly #tensors: ReadonlyMap<string, WidenedTensor>;
  readonly #numbers = new Map<string, Float32Array>();
  /** Scales of the tensors that were read last. */
  readonly #scales = new Map<string, Float32Array>();

  constructor(tensors: ReadonlyMap<string, WidenedTensor>) {
    this.#tensors = tensors;
  }

  /** The tensor of this name, where it is read here. */
  of({ name, type }: TensorEntry): WidenedTensor | undefined {
    return type.name === 'F32' ? this.#tensors.get(name) : undefined;
  }

  /** Fills `into` with bytes of the float32 numbers, from byte `at`. */
  async read(
    tensor: WidenedTensor,
    at: number,
    into: Uint8Array,
    source: NumberSource,
    signal?: AbortSignal,
  ): Promise<void> {
    const read = (entry: TensorEntry, from: number, to: Uint8Array) => source.read(entry, from, to, signal);
    const scale = this.#scales.get(tensor.scale.name) ?? (await this.#readScale(tensor, read));
    for (const part of partsOf(at, into)) {
      await read(tensor.codes, part.first, part.codes);
      this.#widen(tensor, scale, part);
    }
  }

  /** Blocking twin of `read`. */
  readSync(tensor: WidenedTensor, at: number, into: Uint8Array, read: Read<void>): void {
    let scale = this.#scales.get(tensor.scale.name);
    if (scale === undefined) {
      const bytes = new Uint8Array(tensor.scale.end - tensor.scale.begin);
      read(tensor.scale, 0, bytes);
      scale = this.#keep(tensor, bytes);
    }
    for (const part of partsOf(at, into)) {
      read(tensor.codes, part.first, part.codes);
      this.#widen(tensor, scale, part);
    }
  }

  async #readScale(tensor: WidenedTensor, read: Read<Promise<void>>): Promise<Float32Array> {
    const bytes = new Uint8Array(tensor.scale.end - tensor.scale.begin);
    await read(tensor.scale, 0, bytes);
    return this.#keep(tensor, bytes);
  }

  #keep({ scale: { name, type } }: WidenedTensor, bytes: Uint8Array): Float32Array {
    const scale = scalesIn(bytes, type.name);
    if (this.#scales.size >= KEPT) this.#scales.delete(this.#scales.keys().next().value!);
    this.#scales.set(name, scale);
    return scale;
  }

  #numbersOf(type: string): Float32Array {
    const numbers = this.#numbers.get(type) ?? fp8Numbers(type);
    this.#numbers.set(type, numbers);
    return numbers;
  }

  #widen({ codes, block: [high, wide] }: WidenedTensor, scale: Float32Array, part: Part): void {
    const numbers = this.#numbersOf(codes.type.name);
    const cols = codes.shape[1]!;
    const width = Math.ceil(cols / wide);
    const values = new Float32Array(part.codes.length);
    for (let i = 0; i < values.length; ) {
      const row = Math.floor((part.first + i) / cols);
      const col = (part.first + i) % cols;
      const right = Math.min(cols, (Math.floor(col / wide) + 1) * wide);
      const factor = scale[Math.floor(row / high) * width + Math.floor(col / wide)]!;
      const end = Math.min(values.length, i + right - col);
      for (; i < end; i++) values[i] = numbers[part.codes[i]!]! * factor;
    }
    part.into.set(new Uint8Array(values.buffer, part.skip, part.into.length));
  }
}

interface Part {
  /** The first of the numbers. */
  readonly first: number;
  readonly codes: Uint8Array;
  /** Where bytes of them go, without the first `skip`. */
  readonly into: Uint8Array;
  readonly skip: number;
}

/** Whole numbers that hold some bytes, part by part. */
function* partsOf(at: number, into: Uint8Array): Generator<Part> {
  for (let done = 0; done < into.length; ) {
    const first = Math.floor((at + done) / 4);
    const skip = (at + done) % 4;
    const length = Math.min(into.length - done, 4 * MOST - skip);
    yield {
      first,
      codes: new Uint8Array(Math.ceil((skip + length) / 4)),
      into: into.subarray(done, done + length),
      skip,
    };
    done += length;
  }
}
