import { HqqError } from '../../../messages/errors.js';
import { quote } from '../../../messages/text.js';
import type { TensorEntry } from '../../container.js';
import { numbersOf, storedType } from '../../stored-types.js';
import type { RowOrder, Seen } from './view.js';

/** Most numbers of a list (a norm, a bias): it is read whole. */
const MAX_LIST = 1 << 24;

/** Heads of llama.cpp's order: neighbours are what transformers has half a head apart. */
export function interleaved(size: number): RowOrder {
  const half = size / 2;
  return { size, from: (row) => (row % 2) * half + (row >> 1) };
}

/** The way back. */
export function halved(size: number): RowOrder {
  const half = size / 2;
  return { size, from: (row) => (row < half ? 2 * row : 2 * (row - half) + 1) };
}

/** A list of numbers, rounded to none but float32, as llama.cpp wants every one; its numbers in the order of `rows`. */
export function asList(name: string, of: TensorEntry, rows: RowOrder | undefined): Seen {
  const { type, shape } = of;
  const numbers = type.float;
  const count = shape[0] ?? 1;
  if (numbers === undefined || numbersOf(type) === undefined || count > MAX_LIST) {
    const message = `Expected ${quote(of.name)} to be a list of at most ${MAX_LIST} numbers of float32, float16 or bfloat16`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, got ${shape.join(' x ')} of ${type.name}.`);
  }
  return {
    ...{ name, type: storedType('F32'), shape, of },
    make(stored) {
      const out = new DataView(new ArrayBuffer(4 * count));
      const from = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
      for (let i = 0; i < count; i++) {
        const head = rows ? Math.floor(i / rows.size) * rows.size : 0;
        const at = rows ? head + rows.from(i - head) : i;
        out.setFloat32(4 * i, READERS[numbers](from, at), true);
      }
      return new Uint8Array(out.buffer);
    },
  };
}

const READERS = {
  float32: (view: DataView, at: number) => view.getFloat32(4 * at, true),
  float16: (view: DataView, at: number) => halfOf(view.getUint16(2 * at, true)),
  bfloat16(view: DataView, at: number) {
    const word = new DataView(new ArrayBuffer(4));
    word.setUint16(0, view.getUint16(2 * at, true));
    return word.getFloat32(0);
  },
} as const;

function halfOf(bits: number): number {
  const [sign, exponent, mantissa] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : Number.NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25));
}
