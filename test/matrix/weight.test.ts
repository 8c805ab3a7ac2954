import { runInNewContext } from 'node:vm';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { halfOfFloat } from '../../lib/backend/js/lanes.js';
import { QuantizedLinear } from '../../lib/compute/linear.js';
import { quantize, quantizeSync } from '../../lib/compute/quantize.js';
import type { DType } from '../../lib/matrix/dtype.js';
import { readWeight } from '../../lib/matrix/validate.js';
import type { Weight } from '../../lib/matrix/weight.js';
import { randomWeights } from '../support/checkpoints.js';

const SHAPE: readonly [number, number] = [8, 64];
const COUNT = SHAPE[0] * SHAPE[1];
const floats = randomWeights(COUNT, 5);
const halves = Uint16Array.from(floats, halfOfFloat);

/** The numbers of each type, as arrays. */
const NUMBERS: Readonly<Record<DType, Float32Array | Uint16Array>> = {
  float32: floats,
  float16: halves,
  bfloat16: Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16),
};

/** The same bytes in each form that they may come in, at an offset that need not be a multiple of anything. */
const FORMS: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array | ArrayBufferLike>> = {
  'a Uint8Array': (bytes) => bytes,
  'a Uint8Array in the middle of a buffer': (bytes) => at(bytes, new Uint8Array(bytes.length + 8), 4),
  'an unaligned Uint8Array': (bytes) => at(bytes, new Uint8Array(bytes.length + 8), 3),
  'a Buffer': (bytes) => Buffer.from(bytes),
  'an unaligned Buffer': (bytes) => at(bytes, Buffer.alloc(bytes.length + 8), 1),
  'an ArrayBuffer': (bytes) => bytes.slice().buffer,
  'a SharedArrayBuffer': (bytes) => at(bytes, new Uint8Array(new SharedArrayBuffer(bytes.length)), 0).buffer,
  'unaligned bytes of a SharedArrayBuffer': (bytes) =>
    at(bytes, new Uint8Array(new SharedArrayBuffer(bytes.length + 8)), 5),
  'an ArrayBuffer of another realm': (bytes) => {
    const foreign = runInNewContext(`new Uint8Array(${bytes.length})`) as Uint8Array;
    foreign.set(bytes);
    return foreign.buffer;
  },
};

function at(bytes: Uint8Array, within: Uint8Array, offset: number): Uint8Array {
  within.set(bytes, offset);
  return within.subarray(offset, offset + bytes.length);
}

describe('the data of a weight', () => {
  describe.each(Object.keys(NUMBERS) as DType[])('of %s', (dtype) => {
    const numbers = NUMBERS[dtype];
    const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
    const expected = quantizeSync({ data: numbers, dtype, shape: SHAPE });

    test.each(Object.keys(FORMS))('may be %s', async (form) => {
      const data = FORMS[form]!(bytes);
      expect(quantizeSync({ data, dtype, shape: SHAPE })).toEqual(expected);
      expect(await quantize({ data, dtype, shape: SHAPE })).toEqual(expected);
      const layer = await QuantizedLinear.fromWeight({ data, dtype, shape: SHAPE });
      expect(await layer.dequantize()).toEqual(await new QuantizedLinear(expected).dequantize());
    });

    test('is copied only where it has to be', () => {
      const read = (form: string) => {
        const data = FORMS[form]!(bytes);
        return {
          given: data instanceof Uint8Array ? data.buffer : data,
          taken: readWeight({ data, dtype, shape: SHAPE }),
        };
      };
      for (const form of ['a Uint8Array in the middle of a buffer', 'an ArrayBuffer', 'a SharedArrayBuffer']) {
        const { given, taken } = read(form);
        expect(taken.data.buffer).toBe(given);
      }
      for (const form of ['an unaligned Uint8Array', 'unaligned bytes of a SharedArrayBuffer']) {
        const { given, taken } = read(form);
        expect(taken.data.buffer).not.toBe(given);
      }
      expect(readWeight({ data: numbers, dtype, shape: SHAPE }).data).toBe(numbers);
    });
  });

  test('says what it is, where it is a Float32Array', () => {
    const expected = quantizeSync({ data: floats, dtype: 'float32', shape: SHAPE });
    expect(quantizeSync({ data: floats, shape: SHAPE })).toEqual(expected);
    expect(quantizeSync({ data: floats, dtype: undefined, shape: [...SHAPE] })).toEqual(expected);
  });
});

describe('what is no weight', () => {
  const bytes = new Uint8Array(COUNT * 2);
  test.each<readonly [what: string, weight: unknown, message: string]>([
    [
      'bytes of no type',
      { data: bytes, shape: SHAPE },
      'weight.dtype to say what Uint8Array(1024) holds, one of float32',
    ],
    [
      'bits of no type',
      { data: halves, shape: SHAPE },
      'weight.dtype to say what Uint16Array(512) holds, one of float32',
    ],
    [
      'a buffer of no type',
      { data: bytes.buffer, shape: SHAPE },
      'weight.dtype to say what an object of ArrayBuffer holds',
    ],
    ['a type that is none', { data: bytes, dtype: 'fp16', shape: SHAPE }, 'weight.dtype to be one of float32, float16'],
    [
      'floats as halves',
      { data: floats, dtype: 'float16', shape: SHAPE },
      'a Uint16Array of raw bits, or bytes, for dtype',
    ],
    [
      'bits as floats',
      { data: halves, dtype: 'float32', shape: SHAPE },
      'a Float32Array, or bytes, for dtype float32, got',
    ],
    [
      'signed bytes',
      { data: new Int8Array(1024), dtype: 'float16', shape: SHAPE },
      'or bytes, for dtype float16, got Int8',
    ],
    ['a list', { data: [1, 2], dtype: 'float32', shape: [1, 2] }, 'weight.data to be a Float32Array, or bytes, for'],
    ['a list that says nothing', { data: [1, 2], shape: [1, 2] }, '2]. Convert it: Float32Array.from(weight.data).'],
    ['rows', { data: [[1, 2]], shape: [1, 2] }, 'Convert it: Float32Array.from(weight.data.flat()).'],
    [
      'doubles',
      { data: new Float64Array(512), dtype: 'float64', shape: SHAPE },
      'got Float64Array(512). Convert it: Float32Array.from(weight.data).',
    ],
    ['no more than a shape', { shape: SHAPE }, 'Expected weight.data to be a Float32Array, or raw bits or bytes'],
    [
      'an array alone',
      new Float32Array(512),
      'Expected weight to be an object { data, shape: [outFeatures, inFeatures] }',
    ],
    [
      'too few bytes',
      { data: bytes, dtype: 'float32', shape: SHAPE },
      '2048 bytes for 512 weights of float32, got 1024.',
    ],
    [
      'too many',
      { data: bytes.buffer, dtype: 'float16', shape: [8, 63] },
      '1008 bytes for 504 weights of float16, got',
    ],
    [
      'nothing',
      { dtype: 'float16', shape: SHAPE },
      'a Uint16Array of raw bits, or bytes, for dtype float16, got undefined',
    ],
    ['a shape of one', { data: floats, shape: [512] }, 'weight.shape to be two positive integers, got [512].'],
    [
      'a shape of three',
      { data: floats, shape: [2, 4, 64] },
      'weight.shape to be two positive integers, got [2, 4, 64].',
    ],
  ])('%s is refused', (_, weight, message) => {
    const refused = expect.objectContaining({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(/^Expected weight[. ]/),
    });
    expect(() => quantizeSync(weight as Weight)).toThrow(refused);
    expect(() => quantizeSync(weight as Weight)).toThrow(message);
  });

  test('memory that is gone, or may go, is refused', () => {
    const gone = new ArrayBuffer(1024);
    structuredClone(gone, { transfer: [gone] });
    const grows = new (ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer)(1024, {
      maxByteLength: 2048,
    });
    const attempt = (data: ArrayBuffer | Uint8Array) => () => quantizeSync({ data, dtype: 'float16', shape: SHAPE });
    expect(attempt(gone)).toThrow('Expected weight.data to have its memory');
    expect(attempt(grows)).toThrow('Expected weight.data to have a buffer of fixed length');
    expect(attempt(new Uint8Array(grows))).toThrow('Expected weight.data to have a buffer of fixed length');
  });
});

test('types say what may be left out', () => {
  expectTypeOf<{ data: Float32Array; shape: number[] }>().toExtend<Weight>();
  expectTypeOf<{ data: Float32Array; dtype: 'float32'; shape: [number, number] }>().toExtend<Weight>();
  expectTypeOf<{ data: Buffer; dtype: 'bfloat16'; shape: number[] }>().toExtend<Weight>();
  expectTypeOf<{ data: ArrayBuffer; dtype: DType; shape: number[] }>().toExtend<Weight>();
  expectTypeOf<{ data: Uint16Array; shape: number[] }>().not.toExtend<Weight>();
  expectTypeOf<{ data: Uint8Array; shape: number[] }>().not.toExtend<Weight>();
});
