import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { transformSync } from 'esbuild';
import { describe, expect, test } from 'vitest';
import { dequantize, quantize } from '../../lib/index.js';
import {
  fakeQuantize,
  fakeQuantizeGradients,
  fakeQuantizeGradientsSync,
  fakeQuantizeSync,
} from '../../lib/tune/fake-quantize.js';
import { expectSameBytes } from '../support/bytes.js';
import { gaussian, randomOf } from '../support/random.mjs';
import { scratchFolder } from '../support/scratch.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const shape: readonly [number, number] = [24, 64];
const data = Float32Array.from({ length: 24 * 64 }, gaussian(randomOf(3), 1));
const gradient = Float32Array.from({ length: 24 * 64 }, gaussian(randomOf(4), 1));

test('the two layers of docs/fake-quantize.md train to a lower loss than quantizing after', async () => {
  const [, code, printed] = /```ts\n(.*?)```\n\nWhat it prints:\n\n {4}(.*?)\n/s.exec(
    readFileSync(join(ROOT, 'docs', 'fake-quantize.md'), 'utf8'),
  )!;
  const work = scratchFolder('fake-quantize');
  mkdirSync(join(work, 'node_modules'));
  symlinkSync(ROOT, join(work, 'node_modules', 'hqq'), 'junction');
  writeFileSync(join(work, 'train.mjs'), transformSync(code!, { loader: 'ts' }).code);
  const { stdout } = await promisify(execFile)(process.execPath, [join(work, 'train.mjs')], { cwd: work });
  expect(stdout.trim()).toBe(printed);
  const [inFloats, after, trained] = [...stdout.matchAll(/0\.\d+/g)].map(Number);
  expect(trained!).toBeLessThan(0.8 * after!);
  expect(inFloats!).toBeLessThan(trained!);
});

describe('fakeQuantize', () => {
  test.each([
    { nbits: 4, groupSize: 32 },
    { nbits: 2, groupSize: 16, axis: 0 },
    { nbits: 3, granularity: 'channel' },
    { nbits: 1.58, solver: 'minmax', zeroPoint: 'symmetric' },
    { nbits: 8, metaBits: 8 },
    { nbits: 2, iterations: 'auto', solver: 'hqq' },
  ] as const)('is what quantizing and dequantizing gives: %o', async (config) => {
    const weight = { data, shape };
    const q = await quantize(weight, config);
    const faked = await fakeQuantize(weight, config, { threads: 2 });
    const want = await dequantize(q);
    // Codes beside a half may differ in the last bit of a product: none here.
    expectSameBytes(faked.data, want);
    expectSameBytes(faked.scale, q.scale);
    expect([faked.groupSize, faked.axis, faked.nbits, faked.weights]).toEqual([q.groupSize, q.axis, q.nbits, data]);
    expectSameBytes(fakeQuantizeSync(weight, config).data, faked.data);
    const again = await fakeQuantize(weight, config, { scale: faked.scale, zero: faked.zero });
    expectSameBytes(again.codes, faked.codes);
    expect(Math.max(...faked.codes)).toBeLessThanOrEqual(config.nbits === 1.58 ? 2 : 2 ** config.nbits - 1);
  });

  test('of weights in 16 bits is that of the same numbers', async () => {
    const half = Uint16Array.from(data, (w) => new Uint32Array(Float32Array.of(w).buffer)[0]! >>> 16);
    const wide = Float32Array.from(half, (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!);
    const faked = fakeQuantizeSync({ data: half, dtype: 'bfloat16', shape }, { nbits: 3 });
    expectSameBytes(faked.weights, wide);
    expectSameBytes(faked.codes, fakeQuantizeSync({ data: wide, shape }, { nbits: 3 }).codes);
  });

  test('offsets move weights by parts of a level', () => {
    const [scale, zero] = [new Float32Array(24).fill(0.5), new Float32Array(24).fill(4)];
    const offsets = new Float32Array(data.length).fill(0.5);
    const config = { nbits: 4, granularity: 'channel' } as const;
    const plain = fakeQuantizeSync({ data, shape }, config, { scale, zero });
    const moved = fakeQuantizeSync({ data, shape }, config, { scale, zero, offsets });
    moved.codes.forEach((code, i) => expect(code - plain.codes[i]!).toBeOneOf([0, 1]));
    const { offsets: ofOffsets } = fakeQuantizeGradientsSync(moved, gradient);
    const { weights } = fakeQuantizeGradientsSync(plain, gradient);
    expect(ofOffsets).toHaveLength(data.length);
    // A level is half a unit of the weights.
    ofOffsets!.forEach((g, i) => {
      if (moved.codes[i]! < 15 && plain.codes[i]! > 0) expect(g).toBeCloseTo(weights[i]! * 0.5, 6);
    });
  });

  test('gradients are the same now and later', async () => {
    const faked = await fakeQuantize({ data, shape }, { nbits: 2, groupSize: 64 });
    const later = await fakeQuantizeGradients(faked, gradient, { threads: 2 });
    const now = fakeQuantizeGradientsSync(faked, gradient);
    for (const name of ['weights', 'scale', 'zero'] as const) expectSameBytes(later[name], now[name]);
    expect(later.offsets).toBeUndefined();
    expect(later.weights.some((g, i) => g === 0 && gradient[i] !== 0)).toBe(true);
  });

  test.each<[RegExp, () => unknown]>([
    [/scale and zero together/, () => fakeQuantizeSync({ data, shape }, {}, { scale: new Float32Array(24) })],
    [/scale to have 24 elements for 24 groups, got 3/, () => given({ scale: new Float32Array(3) })],
    [/zero to be finite, got NaN at 2/, () => given({ zero: new Float32Array(24).fill(NaN, 2) })],
    [/offsets to have 1536 elements/, () => given({ offsets: new Float32Array(1) })],
    [/no importance beside scale and zero/, () => given({ importance: new Float32Array(64) })],
    [/unknown|Unknown|offset/, () => fakeQuantizeSync({ data, shape }, {}, { offset: 3 } as never)],
    [/NaN at row 1, column 6/, () => given({}, data.with(70, NaN))],
    [
      /gradient to have 1536 elements/,
      () => fakeQuantizeGradientsSync(fakeQuantizeSync({ data, shape }), new Float32Array(2)),
    ],
    [/gradient to be a Float32Array/, () => fakeQuantizeGradientsSync(fakeQuantizeSync({ data, shape }), [] as never)],
    [
      /faked to be an object, got a Promise/,
      () => fakeQuantizeGradientsSync(fakeQuantize({ data, shape }) as never, gradient),
    ],
    [/nbits to be one of .*, got 3\.3/, () => gradientsOf({ nbits: 3.3 })],
    [/axis to be 0 or 1, got 2/, () => gradientsOf({ axis: 2 })],
    [/groupSize to be a positive integer, got 0/, () => gradientsOf({ groupSize: 0 })],
    [/shape to be two positive integers/, () => gradientsOf({ shape: [1536] })],
  ])('refuses what it cannot take: %s', (message, call) => {
    expect(call).toThrow(message);
  });
});

function gradientsOf(more: object) {
  return fakeQuantizeGradientsSync({ ...fakeQuantizeSync({ data, shape }), ...more }, gradient);
}

function given(more: object, weights = data) {
  const run = { scale: new Float32Array(24).fill(1), zero: new Float32Array(24).fill(1), ...more };
  return fakeQuantizeSync({ data: weights, shape }, { granularity: 'channel' }, run);
}
