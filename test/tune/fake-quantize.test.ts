import { describe, expect, test } from 'vitest';
import type { FakeGroupsArgs, FakeQuantizeStepArgs, Operations } from '../../binding.js';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { provide } from '../../lib/backend/js/backend.js';
import * as FAKE from '../../lib/backend/js/gradients/fake-quantize.js';
import { ZERO_KINDS } from '../../lib/solvers/solvers.js';
import { expectSameBytes } from '../support/bytes.js';
import { gaussian, randomOf } from '../support/random.mjs';

provide(FAKE);

const NONE = new Float32Array(0);
const NO_CODES = new Uint8Array(0);
/** Rows and columns of grouped matrices: groups of every length that straddles vectors, on either axis. */
const SHAPES = [
  [1, 1],
  [3, 16],
  [5, 7],
  [17, 33],
  [64, 20],
  [2, 300],
  [129, 48],
  [24, 400],
] as const;

type Groups = Omit<FakeGroupsArgs, 'threads'>;

function newGroups(
  seed: number,
  rows: number,
  cols: number,
  axis: 0 | 1,
): Groups & { readonly gradient: Float32Array } {
  const random = randomOf(seed);
  const normal = gaussian(random, 1);
  const count = rows * cols;
  const groups = axis === 1 ? rows : cols;
  const maxCode = [1, 2, 3, 7, 15, 255][Math.floor(random() * 6)]!;
  const floats = (length: number, draw: () => number) => Float32Array.from({ length }, draw);
  return {
    ...{ rows, cols, axis, maxCode },
    weights: floats(count, normal),
    offsets: floats(count, () => [0, -0.5, 0.5, random() - 0.5][Math.floor(random() * 4)]!),
    // Of either sign, and now and then nothing.
    scale: floats(groups, () => (random() < 0.05 ? 0 : (random() < 0.3 ? -1 : 1) * (0.3 + random()) * (4 / maxCode))),
    zero: floats(groups, () => maxCode * (0.2 + 0.6 * random())),
    gradient: floats(count, () => (random() < 0.1 ? 0 : random() < 0.02 ? 1e-44 * normal() : normal())),
  };
}

const copyOf = (args: object) =>
  Object.fromEntries(
    Object.entries(args).map(([name, value]) => [
      name,
      ArrayBuffer.isView(value) ? (value as Float32Array).slice() : value,
    ]),
  );

/** Runs an operation of copies of its arguments, which it returns, on each number of threads. */
function run<K extends keyof Operations>(
  name: string,
  operation: K,
  args: Omit<Operations[K], 'threads'>,
): Operations[K] {
  const runs = (name === 'js' ? [1] : [1, 2, 7]).map((threads) => {
    const copy = { ...copyOf(args), threads } as unknown as Operations[K];
    openBackend(name).run(operation, copy);
    return copy;
  });
  for (const other of runs.slice(1)) expectSameArrays(other, runs[0]!);
  return runs[0]!;
}

function expectSameArrays(got: object, want: object): void {
  for (const [name, value] of Object.entries(want))
    if (ArrayBuffer.isView(value)) expectSameBytes(got[name as keyof typeof got] as Uint8Array, value as Uint8Array);
}

const stepArgs = (groups: ReturnType<typeof newGroups>, zeroKind: number): Omit<FakeQuantizeStepArgs, 'threads'> => ({
  ...{ ...groups, zeroKind, out: new Float32Array(groups.weights.length).fill(NaN) },
  ...{ startScale: groups.scale.slice(), startZero: groups.zero.slice() },
  ...{ factor: groups.scale.map(() => 1), shift: groups.scale.map(() => 0) },
  ...{ offsetStep: 0.005, factorStep: 0.004, shiftStep: 0.3, factorRange: 0.01, shiftRange: 0.7 },
});

describe.each(availableBackends())('%s', (name) => {
  test.each(SHAPES)('has the bytes of JavaScript for %i x %i', (rows, cols) => {
    for (const axis of [0, 1] as const) {
      const groups = newGroups(rows * cols + axis, rows, cols, axis);
      const { gradient, ...rest } = groups;
      const outs = { out: new Float32Array(rows * cols).fill(NaN), codes: new Uint8Array(rows * cols) };
      const faked = run(name, 'fakeQuantize', { ...rest, ...outs });
      expectSameArrays(faked, run('js', 'fakeQuantize', { ...rest, ...outs }));
      expectSameBytes(run(name, 'fakeQuantize', { ...rest, out: outs.out, codes: NO_CODES }).out, faked.out);
      expectSameBytes(run(name, 'fakeQuantize', { ...rest, out: NONE, codes: outs.codes }).codes, faked.codes);

      const of = (wanted: boolean, length: number) => (wanted ? new Float32Array(length).fill(NaN) : NONE);
      for (const wanted of [true, false]) {
        const written = {
          ...{ weightGradient: of(wanted, rows * cols), offsetGradient: of(!wanted || axis === 1, rows * cols) },
          ...{ scaleGradient: of(wanted, rest.scale.length), zeroGradient: of(true, rest.scale.length) },
        };
        const args = { ...groups, ...written, codes: NO_CODES };
        expectSameArrays(run(name, 'fakeQuantizeGradient', args), run('js', 'fakeQuantizeGradient', args));
        const given = { ...args, codes: faked.codes, weights: NONE, offsets: NONE };
        expectSameArrays(run(name, 'fakeQuantizeGradient', given), run('js', 'fakeQuantizeGradient', given));
      }

      for (let zeroKind = 0; zeroKind < ZERO_KINDS.length; zeroKind++) {
        let step = stepArgs(groups, zeroKind);
        for (let i = 0; i < 4; i++) {
          const next = run(name, 'fakeQuantizeStep', step);
          expectSameArrays(next, run('js', 'fakeQuantizeStep', step));
          step = next;
        }
        // What it leaves is what `fakeQuantize` makes of offsets, scales and zeros.
        const again = run(name, 'fakeQuantize', { ...step, out: outs.out, codes: NO_CODES });
        expectSameBytes(again.out, step.out);
      }
    }
  });
});

test('weights become what their codes stand for', () => {
  const { gradient: _, ...groups } = newGroups(5, 9, 40, 1);
  const { out, codes } = run('js', 'fakeQuantize', {
    ...groups,
    out: new Float32Array(360),
    codes: new Uint8Array(360),
  });
  for (let i = 0; i < 360; i++) {
    const [scale, zero] = [groups.scale[Math.floor(i / 40)]!, groups.zero[Math.floor(i / 40)]!];
    const level = (scale === 0 ? 0 : groups.weights[i]! / scale) + zero + groups.offsets[i]!;
    // Within half a level, but for what is beyond the codes.
    expect(Math.abs(codes[i]! - Math.min(Math.max(level, 0), groups.maxCode))).toBeLessThan(0.5 + 1e-5);
    expect(out[i]).toBeCloseTo((codes[i]! - zero) * scale, 5);
  }
});

/** With what rounding added to each level held fast, gradients are ordinary ones, which differences find. */
test('gradients are those of differences, straight through the rounding', () => {
  const groups = newGroups(11, 6, 50, 1);
  const { rows, cols, maxCode, gradient } = groups;
  const wide = {
    ...{ weights: Float64Array.from(groups.weights), offsets: Float64Array.from(groups.offsets) },
    ...{ scale: Float64Array.from(groups.scale, (s) => s || 0.3), zero: Float64Array.from(groups.zero) },
  };
  const levelOf = (of: typeof wide, i: number) => {
    const group = Math.floor(i / cols);
    return of.weights[i]! / of.scale[group]! + of.zero[group]! + of.offsets[i]!;
  };
  const rounding = Float64Array.from(
    { length: rows * cols },
    (_, i) => Math.round(levelOf(wide, i)) - levelOf(wide, i),
  );
  const clamped = Int8Array.from(rounding, (rest, i) => {
    const level = Math.round(levelOf(wide, i) + rest);
    return level < 0 ? -1 : level > maxCode ? 1 : 0;
  });
  const loss = (of: typeof wide) =>
    gradient.reduce((sum, g, i) => {
      const group = Math.floor(i / cols);
      const code = clamped[i] === 0 ? levelOf(of, i) + rounding[i]! : clamped[i] === 1 ? maxCode : 0;
      return sum + g * (code - of.zero[group]!) * of.scale[group]!;
    }, 0);
  const difference = (array: keyof typeof wide, at: number) => {
    const [low, high] = [-1e-4, 1e-4].map((by) => {
      const moved = { ...wide, [array]: wide[array].slice() };
      moved[array][at]! += by;
      return loss(moved);
    });
    return (high! - low!) / 2e-4;
  };
  const { weightGradient, offsetGradient, scaleGradient, zeroGradient } = run('js', 'fakeQuantizeGradient', {
    ...groups,
    scale: Float32Array.from(wide.scale),
    codes: NO_CODES,
    ...{ weightGradient: new Float32Array(rows * cols), offsetGradient: new Float32Array(rows * cols) },
    ...{ scaleGradient: new Float32Array(rows), zeroGradient: new Float32Array(rows) },
  });
  expect(clamped.filter((side) => side !== 0).length).toBeGreaterThan(10);
  expect(clamped.filter((side) => side === 0).length).toBeGreaterThan(100);
  weightGradient.forEach((value, i) => expect(value).toBeCloseTo(difference('weights', i), 4));
  offsetGradient.forEach((value, i) => expect(value).toBeCloseTo(difference('offsets', i), 4));
  scaleGradient.forEach((value, i) => expect(value).toBeCloseTo(difference('scale', i), 3));
  zeroGradient.forEach((value, i) => expect(value).toBeCloseTo(difference('zero', i), 3));
});

test('of given codes, gradients of scales and zeros are those of a line', () => {
  const { gradient, ...groups } = newGroups(3, 4, 32, 1);
  const codes = Uint8Array.from({ length: 128 }, (_, i) => i % (groups.maxCode + 1));
  const { scaleGradient, zeroGradient } = run('js', 'fakeQuantizeGradient', {
    ...{ ...groups, gradient, codes, weights: NONE, offsets: NONE, weightGradient: NONE, offsetGradient: NONE },
    ...{ scaleGradient: new Float32Array(4), zeroGradient: new Float32Array(4) },
  });
  for (let g = 0; g < 4; g++) {
    let [ofScale, ofZero] = [0, 0];
    for (let i = 32 * g; i < 32 * (g + 1); i++) {
      ofScale += gradient[i]! * (codes[i]! - groups.zero[g]!);
      ofZero -= gradient[i]! * groups.scale[g]!;
    }
    expect(scaleGradient[g]).toBeCloseTo(ofScale, 2);
    expect(zeroGradient[g]).toBeCloseTo(ofZero, 3);
  }
});

test('steps keep within their ranges, and what has no step stays', () => {
  for (const zeroKind of ZERO_KINDS.keys()) {
    const groups = newGroups(21, 8, 64, 1);
    const start = stepArgs(groups, zeroKind);
    let step = run('js', 'fakeQuantizeStep', start);
    for (let i = 0; i < 9; i++) step = run('js', 'fakeQuantizeStep', step);
    for (const offset of step.offsets) expect(Math.abs(offset)).toBeLessThanOrEqual(0.5);
    for (const factor of step.factor) expect(Math.abs(factor - 1)).toBeLessThan(0.01 + 1e-6);
    for (const shift of step.shift) expect(Math.abs(shift)).toBeLessThanOrEqual(Math.fround(0.7));
    const kind = ZERO_KINDS[zeroKind]!;
    if (kind === 'symmetric') expect([...step.zero]).toEqual([...groups.zero]);
    else expect([...step.zero]).not.toEqual([...groups.zero]);
    for (const zero of kind === 'integer' ? step.zero : []) {
      expect(Number.isInteger(zero) && zero >= 0 && zero <= groups.maxCode).toBe(true);
    }
    const still = run('js', 'fakeQuantizeStep', { ...start, offsetStep: 0, factorStep: 0, shiftStep: 0 });
    expect([...still.scale]).toEqual([...groups.scale]);
    if (kind !== 'integer') expect([...still.zero]).toEqual([...groups.zero]);
    expect([...still.offsets]).toEqual([...groups.offsets]);
  }
});

test('steps against the signs of a gradient lessen a loss', () => {
  const { gradient: _, ...groups } = newGroups(8, 32, 64, 1);
  const target = groups.weights;
  const fresh = { ...groups, offsets: new Float32Array(2048), maxCode: 3, scale: new Float32Array(32).fill(1.1) };
  let step = { ...stepArgs({ ...fresh, gradient: new Float32Array(2048), zero: new Float32Array(32).fill(1.2) }, 0) };
  step = run('js', 'fakeQuantizeStep', { ...step, offsetStep: 0, factorStep: 0, shiftStep: 0 });
  const loss = () => step.out.reduce((sum, w, i) => sum + (w - target[i]!) ** 2, 0);
  const before = loss();
  for (let i = 0; i < 30; i++) {
    const gradient = step.out.map((w, at) => 2 * (w - target[at]!));
    step = run('js', 'fakeQuantizeStep', { ...step, gradient, shiftStep: 0.01, factorRange: 0.3 });
  }
  expect(loss()).toBeLessThan(before * 0.97);
});

describe.each(availableBackends().filter((name) => name !== 'js'))(
  '%s refuses what would read beyond an array',
  (name) => {
    const groups = { rows: 2, cols: 3, axis: 1 as const, maxCode: 3, offsets: NONE, threads: 1 };
    const f = (length: number) => new Float32Array(length);
    const given = { ...groups, weights: f(6), scale: f(2), zero: f(2) };
    const step = stepArgs({ ...newGroups(1, 2, 3, 1) }, 0);
    test.each<[string, keyof Operations, object]>([
      ['weights', 'fakeQuantize', { ...given, weights: f(5), out: f(6), codes: NO_CODES }],
      ['scale', 'fakeQuantize', { ...given, axis: 0, out: f(6), codes: NO_CODES }],
      ['zero', 'fakeQuantize', { ...given, zero: f(3), out: f(6), codes: NO_CODES }],
      ['offsets', 'fakeQuantize', { ...given, offsets: f(1), out: f(6), codes: NO_CODES }],
      ['codes', 'fakeQuantize', { ...given, out: f(6), codes: new Uint8Array(5) }],
      ['maxCode', 'fakeQuantize', { ...given, maxCode: 256, out: f(6), codes: NO_CODES }],
      ['gradient', 'fakeQuantizeGradient', { ...given, gradient: f(2), codes: NO_CODES }],
      [
        'zeroGradient',
        'fakeQuantizeGradient',
        {
          ...{ ...given, gradient: f(6), codes: new Uint8Array(6), weightGradient: NONE, offsetGradient: NONE },
          ...{ scaleGradient: f(2), zeroGradient: f(6) },
        },
      ],
      ['offsets', 'fakeQuantizeStep', { ...step, offsets: NONE, threads: 1 }],
      ['factor', 'fakeQuantizeStep', { ...step, factor: f(1), threads: 1 }],
      ['zeroKind', 'fakeQuantizeStep', { ...step, zeroKind: 4, threads: 1 }],
      [
        'weightGradient',
        'denseLinearGradient',
        { batch: 1, inFeatures: 2, outFeatures: 3, gradient: f(3), xGradient: NONE, weightGradient: f(5), threads: 1 },
      ],
      [
        'weights',
        'denseLinearGradient',
        {
          ...{
            batch: 1,
            inFeatures: 2,
            outFeatures: 3,
            gradient: f(3),
            xGradient: f(2),
            weightGradient: NONE,
            threads: 1,
          },
          ...{ weights: NONE, x: NONE },
        },
      ],
    ])('%s of %s', (word, operation, args) => {
      expect(() => openBackend(name).run(operation, args as never)).toThrow(word);
    });
  },
);
