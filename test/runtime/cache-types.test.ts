import { describe, expect, test } from 'vitest';
import type { AttentionArgs, CacheSegment } from '../../binding.js';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { floatOfHalf } from '../../lib/backend/js/lanes.js';
import { CACHE_GROUP, CACHE_TYPES, KEY_STRIP } from '../../lib/matrix/constants.js';
import { type CacheDtype, KvCache } from '../../lib/runtime/blocks/cache.js';
import '../../lib/runtime/blocks/plan.js'; // provides attention in JavaScript
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { expectSameBytes } from '../support/bytes.js';
import { SHIPPED } from '../support/language-models.js';

const BACKENDS = availableBackends();
const EPSILON = 2 ** -24;

let state = 7;
const floats = (length: number, size = 1) =>
  Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state / 2 ** 31) * size;
  });

interface Case {
  readonly kvHeads: number;
  readonly headDim: number;
  readonly rows: number;
  readonly capacities: readonly number[];
}

const CASES: readonly Case[] = [
  { kvHeads: 2, headDim: 64, rows: 40, capacities: [48] },
  { kvHeads: 2, headDim: 64, rows: 70, capacities: [16, 32, 32] },
  { kvHeads: 1, headDim: 80, rows: 33, capacities: [32, 16] },
  { kvHeads: 3, headDim: 7, rows: 18, capacities: [16, 16] },
  { kvHeads: 1, headDim: 131, rows: 20, capacities: [32] },
];

/** Segments full of what is no number, nor a code of one. */
function segmentsOf(type: number, { kvHeads, headDim, capacities }: Case): CacheSegment[] {
  return capacities.map((capacity) => {
    const elements = capacity * kvHeads * headDim;
    const meta = type === 2 ? capacity * kvHeads * Math.ceil(headDim / CACHE_GROUP) * 2 : 0;
    const make = () =>
      [
        () => new Float32Array(elements).fill(NaN),
        () => new Uint16Array(elements).fill(0x7e01),
        () => new Uint8Array(elements).fill(77),
      ][type]!();
    const floats = () => new Float32Array(meta).fill(NaN);
    return { capacity, keys: make(), values: make(), keyMeta: floats(), valueMeta: floats() };
  });
}

type Arrays = Pick<AttentionArgs, 'q' | 'k' | 'v'>;

function run(name: string, type: number, one: Case, arrays: Arrays, threads: number, window = 0) {
  const { kvHeads, headDim, rows } = one;
  const segments = segmentsOf(type, one);
  const out = new Float32Array(arrays.q.length);
  const positions = Int32Array.from({ length: rows }, (_, row) => row);
  const scale = 1 / Math.sqrt(headDim);
  const shape = { rows, heads: 2 * kvHeads, kvHeads, headDim, window, scale, softcap: 0, positions };
  openBackend(name).run('attention', { ...shape, cacheType: type, segments, ...arrays, out, threads });
  return { segments, out };
}

function arraysOf({ kvHeads, headDim, rows }: Case, size = 1): Arrays {
  const k = floats(rows * kvHeads * headDim, size);
  return { q: floats(2 * rows * kvHeads * headDim), k, v: floats(k.length, size) };
}

/** Keys or values as a cache gives them back, `[rows, kvHeads, headDim]`. */
function held(type: number, { kvHeads, headDim, rows }: Case, segments: readonly CacheSegment[], keys: boolean) {
  const groups = Math.ceil(headDim / CACHE_GROUP);
  const out = new Float32Array(rows * kvHeads * headDim);
  let begin = 0;
  for (const segment of segments) {
    const array = keys ? segment.keys : segment.values;
    const meta = keys ? segment.keyMeta : segment.valueMeta;
    for (let j = begin; j < Math.min(rows, begin + segment.capacity); j++)
      for (let g = 0; g < kvHeads; g++)
        for (let d = 0; d < headDim; d++) {
          const row = g * segment.capacity + j - begin;
          const [strip, lane] = [row - (row % KEY_STRIP), row % KEY_STRIP];
          const x = array[keys ? strip * headDim + d * KEY_STRIP + lane : row * headDim + d]!;
          const group = Math.floor(d / CACHE_GROUP);
          const [at, stride] = keys
            ? [strip * groups * 2 + lane + 2 * group * KEY_STRIP, KEY_STRIP]
            : [(row * groups + group) * 2, 1];
          out[(j * kvHeads + g) * headDim + d] = [
            () => x,
            () => floatOfHalf(x),
            () => x * meta[at]! + meta[at + stride]!,
          ][type]!();
        }
    begin += segment.capacity;
  }
  return out;
}

/** The greatest difference of two arrays. */
function farthest(a: Float32Array, b: Float32Array): number {
  expect(a.some(Number.isNaN)).toBe(false);
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);
}

describe.each(CACHE_TYPES.map(({ name }, type) => [name, type] as const))('a cache of %s', (_name, type) => {
  test.each(CASES)('keeps the same bits on every backend, and attends to them: %j', (one) => {
    const arrays = arraysOf(one);
    arrays.k[3] = 1e-30; // too little to tell from what is beside it
    arrays.v.fill(0.25, 0, one.headDim); // nothing to tell apart
    const first = run('js', type, one, arrays, 1);
    const keys = held(type, one, first.segments, true);
    const values = held(type, one, first.segments, false);
    // A level of 8 bits is a 255th of what a group spans, 2 here; float16 has 11 bits.
    const bound = [0, 2 ** -12, 1 / 255 + EPSILON * 4][type]!;
    expect(Math.max(farthest(keys, arrays.k), farthest(values, arrays.v))).toBeLessThanOrEqual(bound);
    const { out: exact } = run('js', 0, one, { ...arrays, k: keys, v: values }, 1);
    for (const name of BACKENDS) {
      for (const threads of [1, 2]) {
        const got = run(name, type, one, arrays, threads);
        got.segments.forEach((segment, i) => {
          for (const part of ['keys', 'values', 'keyMeta', 'valueMeta'] as const)
            expectSameBytes(segment[part], first.segments[i]![part]);
        });
        expect(farthest(got.out, exact)).toBeLessThan(EPSILON * 64 * Math.sqrt(one.headDim));
      }
    }
  });

  test('gives the same however it is cut', () => {
    const [whole, cut] = [CASES[1]!, { ...CASES[1]!, capacities: [80] }];
    const arrays = arraysOf(whole);
    for (const name of BACKENDS)
      for (const window of [0, 21])
        expectSameBytes(run(name, type, cut, arrays, 2, window).out, run(name, type, whole, arrays, 1, window).out);
  });

  test('keeps what is no number out of other positions', () => {
    const one = CASES[1]!;
    const arrays = arraysOf(one);
    arrays.v[50 * one.kvHeads * one.headDim + 3] = NaN; // of head 0
    for (const name of BACKENDS) {
      const { out } = run(name, type, one, arrays, 2);
      const of = (row: number, head: number) => out.subarray((row * 4 + head) * 64, (row * 4 + head + 1) * 64);
      expect(of(49, 0).some(Number.isNaN)).toBe(false);
      expect(Number.isNaN(of(50, 0)[3])).toBe(true);
      expect(of(60, 2).some(Number.isNaN)).toBe(false);
    }
  });
});

test('float16 clips what it cannot hold; bytes tell no levels of what is infinitely far apart', () => {
  const one: Case = { kvHeads: 1, headDim: 64, rows: 1, capacities: [16] };
  const arrays = { ...arraysOf(one), v: new Float32Array(64).fill(1e6) };
  for (const name of BACKENDS) {
    expect(new Set(run(name, 1, one, arrays, 1).out)).toEqual(new Set([65504]));
    expect(new Set(run(name, 2, one, arrays, 1).out)).toEqual(new Set([1e6]));
    const wide = { ...arrays, v: new Float32Array(64).fill(3e38).map((x, i) => (i % 2 ? x : -x)) };
    expect(run(name, 2, one, wide, 1).out.every(Number.isNaN)).toBe(true);
  }
});

describe('a model', () => {
  const ids = (count: number) => Array.from({ length: count }, (_, i) => (i * 37) % 2048);

  test.each([
    ['float16', 2, 2e-3],
    ['int8', 2.6, 2e-2], // heads of 32: two floats for as many codes, 3.2 times less
  ] as const)('takes less memory with a cache of %s, and says nearly the same', async (cacheDtype, less, bound) => {
    await using exact = await loadLanguageModel(SHIPPED, { maxContext: 320 });
    await using model = await loadLanguageModel(SHIPPED, { cacheDtype, maxContext: 320 });
    const [own, other] = [model.createCache(), exact.createCache()];
    const got = await model.forward(ids(300), own, { logits: 'all' });
    const want = await exact.forward(ids(300), other, { logits: 'all' });
    expect(other.bytes / own.bytes).toBeGreaterThanOrEqual(less);
    const size = Math.sqrt(want.reduce((sum, x) => sum + x * x, 0));
    const off = Math.sqrt(got.reduce((sum, x, i) => sum + (x - want[i]!) ** 2, 0));
    expect(off / size).toBeLessThan(bound);
    expect(off).toBeGreaterThan(0);
  });

  test('refuses a type that no cache has', async () => {
    await expect(loadLanguageModel(SHIPPED, { cacheDtype: 'float8' as CacheDtype })).rejects.toThrow(
      'Expected cacheDtype to be one of float32, float16, int8, got "float8".',
    );
  });
});

test.each(CACHE_TYPES)(
  'a cache of $name grows without moving what it holds, and is copied across segments',
  async ({ name }) => {
    await using model = await loadLanguageModel(SHIPPED, { cacheDtype: name, maxContext: 2000 });
    const ids = Array.from({ length: 700 }, (_, i) => (i * 37) % 2048);
    const cache = model.createCache();
    await model.forward(ids.slice(0, 200), cache);
    const { segments } = cache.layer(0);
    await model.forward(ids.slice(200, 500), cache);
    await model.forward(ids.slice(500), cache);
    const now = cache.layer(0).segments;
    expect(now.length).toBeGreaterThan(1);
    expect(now[0]!.keys).toBe(segments[0]!.keys);
    const copy = model.createCache();
    await model.forward([1, 2, 3], copy);
    await copy.copyFrom(cache, 690);
    expect(copy.layer(0).segments.map(({ capacity }) => capacity)).not.toEqual(now.map(({ capacity }) => capacity));
    const whole = model.createCache();
    const want = (await model.forward(ids, whole)).slice();
    expectSameBytes(await model.forward(ids.slice(690), copy), want);
  },
);

test('room is made ahead, but not for gigabytes', async () => {
  const config = { layers: 1, kvHeads: 1, headDim: 4, vocabSize: 8, ropes: [] };
  const cache = new KvCache(config as never, 1 << 20);
  const room: number[] = [];
  for (let i = 0; i < 40; i++) {
    await cache.extend(1000, async () => {});
    const positions = cache.bytes / 32;
    expect(positions - cache.length).toBeLessThanOrEqual(4096);
    room.push(positions);
  }
  expect(new Set(room).size).toBeLessThan(16);
});
