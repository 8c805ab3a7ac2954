import { expect, test } from 'vitest';

// That arrays are compared as memory (support/equality.ts) changes nothing but the time that it takes.

test.each([
  ['the same', Float32Array.of(1, NaN, -0), Float32Array.of(1, NaN, -0)],
  ['parts of others', Int16Array.of(7, 1, 2).subarray(1), Int16Array.of(1, 2)],
  [
    'NaN of other bits',
    new Float32Array(Uint32Array.of(0x7fc00000).buffer),
    new Float32Array(Uint32Array.of(0x7fc00001).buffer),
  ],
  ['bytes', Buffer.from('ab'), Buffer.from('ab')],
])('arrays are equal: %s', (_, a, b) => {
  expect(a).toEqual(b);
  expect({ a: [a] }).toStrictEqual({ a: [b] });
});

test.each([
  ['signs of zeros', Float64Array.of(0), Float64Array.of(-0)],
  ['a number', Float32Array.of(1, 2), Float32Array.of(1, 3)],
  ['lengths', Uint8Array.of(1), Uint8Array.of(1, 0)],
  ['kinds', Int8Array.of(1), Uint8Array.of(1)],
])('arrays are not: %s', (_, a, b) => {
  expect(a).not.toStrictEqual(b);
  expect({ a: [a] }).not.toStrictEqual({ a: [b] });
});
