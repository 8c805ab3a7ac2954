import { storedType } from '../containers/stored-types.js';
import type { WholeTensor } from './scheme.js';

// Numbers, flags and words as tensors: how Python's hqq encodes them (`encode_safetensor_type`).

type Value = Omit<WholeTensor, 'name'>;

const U8 = storedType('U8');

/** All that were made: a model has thousands of tensors with few different values, and is looked through for their shapes several times. */
const made = new Map<string, Value>();

/** One value for each key. Nobody writes to its bytes. */
function once(key: string, make: () => Value): Value {
  let value = made.get(key);
  if (value === undefined) made.set(key, (value = make()));
  return value;
}

export const text = (value: string): Value =>
  once(`text ${value}`, () => ({ type: U8, shape: [value.length], bytes: Buffer.from(value, 'latin1') }));

export const flag = (value: boolean): Value =>
  once(`flag ${value}`, () => ({ type: U8, shape: [], bytes: Uint8Array.of(value ? 1 : 0) }));

export const integer = (value: number): Value => word('I32', value, (view) => view.setInt32(0, value, true));

export const float = (value: number): Value => word('F32', value, (view) => view.setFloat32(0, value, true));

export function integers(values: readonly number[]): Value {
  const write = (view: DataView) => values.forEach((value, i) => view.setBigInt64(i * 8, BigInt(value), true));
  const make = () => ({
    type: storedType('I64'),
    shape: [values.length],
    bytes: littleEndian(8 * values.length, write),
  });
  return once(`integers ${values}`, make);
}

function word(type: string, value: number, write: (view: DataView) => void): Value {
  return once(`${type} ${value}`, () => ({ type: storedType(type), shape: [], bytes: littleEndian(4, write) }));
}

function littleEndian(length: number, write: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  write(new DataView(bytes.buffer));
  return bytes;
}
