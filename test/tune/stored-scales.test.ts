import { expect, test } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { roundThrough } from '../../lib/compute/floats.js';
import { resolveQuantConfig } from '../../lib/matrix/options.js';
import { storedScales } from '../../lib/tune/grouped.js';

const machine = { backend: activeBackend(), threads: 1, signal: undefined };

test('zeros that are stored less the middle code are rounded so, those that are codes stay', async () => {
  const zeros = Float32Array.of(0.1, 7.513, 15.01);
  const scales = Float32Array.of(1, 2, 3);
  const stored = (zeroPoint: 'float' | 'integer', zeroFrom: number) => {
    const config = resolveQuantConfig({ nbits: 4, zeroPoint });
    return storedScales(scales.slice(), zeros.slice(), config, { metaDtype: 'bfloat16', zeroFrom }, machine);
  };
  const { zero } = await stored('float', 8);
  const less = zero.map((value) => value - 8);
  expect(roundThrough(less.slice(), 'bfloat16')).toEqual(less);
  // Near the middle they are finer than zeros themselves would be.
  expect(Math.abs(zero[1]! - zeros[1]!)).toBeLessThan(2 ** -9);
  expect((await stored('float', 0)).zero).toEqual(roundThrough(zeros.slice(), 'bfloat16'));
  expect((await stored('integer', 8)).zero).toEqual(zeros);
});
