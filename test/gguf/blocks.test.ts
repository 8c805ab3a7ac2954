import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { BLOCK_TYPES, type BlockType, subsOf } from '../../lib/matrix/block-types.js';
import '../../lib/schemes/ggml/scheme.js'; // which brings the operations in JavaScript
import { rangeOf, searchOf } from '../../lib/schemes/ggml/search.js';
import { expectSameBytes } from '../support/bytes.js';
import { gaussian, randomOf } from '../support/random.mjs';

// ggml's blocks on every backend. What blocks mean is told by numbers of the Python package gguf 0.19 (`gguf.quants.dequantize`).

interface Golden {
  readonly blocks: string;
  readonly sha256: string;
  readonly first: readonly number[];
}
const GOLDEN = JSON.parse(readFileSync(new URL('../golden/ggml-blocks.json', import.meta.url), 'utf8')) as Readonly<
  Record<string, Golden>
>;

const BACKENDS = availableBackends();

function decode(backend: string, type: BlockType, blocks: Uint8Array): Float32Array {
  const out = new Float32Array((blocks.length / type.bytes) * type.weights);
  openBackend(backend as (typeof BACKENDS)[number]).run('decodeBlocks', { type: type.id, blocks, out, threads: 2 });
  return out;
}

interface Given {
  readonly weights: Float32Array;
  readonly rows: number;
  readonly cols: number;
  readonly importance?: Float32Array;
  readonly joint?: boolean;
  readonly threads?: number;
}

function encode(backend: string, type: BlockType, given: Given) {
  const { weights, rows, cols, importance = new Float32Array(0), joint = true, threads = 1 } = given;
  const blocks = new Uint8Array((weights.length / type.weights) * type.bytes);
  const stats = new Float64Array(5);
  const { starts, ...search } = joint ? searchOf(type) : rangeOf(type);
  openBackend(backend as (typeof BACKENDS)[number]).run('encodeBlocks', {
    ...{ type: type.id, rows, cols, weights, dtype: 0, starts: Float32Array.from(starts.flat()), ...search },
    ...{ importance, blocks, stats, threads },
  });
  return { blocks, stats };
}

const normal = (count: number, seed: number, size = 0.02) =>
  Float32Array.from({ length: count }, gaussian(randomOf(seed), size));

/** Weights of several kinds: ordinary, with outliers, of one sign, constant, of zero, tiny, huge. */
function mixed(count: number, seed: number): Float32Array {
  const random = randomOf(seed);
  const draw = gaussian(random, 0.02);
  const kinds: readonly (() => number)[] = [
    draw,
    () => draw() * (random() < 0.05 ? 40 : 1),
    () => Math.abs(draw()),
    () => -Math.abs(draw()) - 0.01,
    () => 0.25,
    () => 0,
    () => draw() * 1e-6,
    () => draw() * 1e5,
    () => Math.round(draw() * 100) / 4,
  ];
  let kind = draw;
  return Float32Array.from({ length: count }, (_, i) => {
    if (i % 64 === 0) kind = kinds[Math.floor(random() * kinds.length)]!;
    return kind();
  });
}

/** Relative errors of `ggml_quantize_chunk` (ggml 0.21, without importance) of `normal(65536, 1)`, and bounds of ours squared over them. */
const GGML: Readonly<Record<string, readonly [error: number, bound: number]>> = {
  Q2_K: [0.296844, 0.77],
  Q3_K: [0.15115, 0.915],
  Q4_0: [0.08582, 0.9],
  Q4_1: [0.078311, 0.8],
  Q4_K: [0.071623, 0.97],
  Q5_0: [0.042915, 0.91],
  Q5_1: [0.037883, 0.78],
  Q5_K: [0.036148, 0.915],
  Q6_K: [0.017758, 0.92],
  Q8_0: [0.005372, 0.85],
  IQ4_NL: [0.076114, 0.95],
  IQ4_XS: [0.076684, 0.95],
};

/** The same, both times with the importance `IMPORTANCE`, by which errors count. */
const GGML_WEIGHTED: Readonly<Record<string, number>> = {
  Q2_K: 0.226635,
  Q3_K: 0.131552,
  Q4_0: 0.07639,
  Q4_1: 0.061985,
  Q4_K: 0.06306,
};
const IMPORTANCE = normal(1024, 5, 1).map((x) => x * x + 0.05);

describe.each(BLOCK_TYPES.map((type) => [type.name, type] as const))('%s', (name, type) => {
  it.each(BACKENDS)('is decoded as the Python package does, on %s', (backend) => {
    const { blocks, sha256, first } = GOLDEN[name]!;
    const values = decode(backend, type, new Uint8Array(Buffer.from(blocks, 'base64')));
    expect([...values.subarray(0, 4)]).toEqual(first);
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(sha256);
  });

  it('has the same bytes from every backend and any number of threads', () => {
    const [rows, cols] = [9, 2048];
    const weights = mixed(rows * cols, 3 + type.id);
    const importance = normal(cols, 5, 1).map(Math.abs).fill(0, 64, 160);
    for (const joint of [true, false]) {
      for (const given of [
        { weights, rows, cols, joint },
        { weights, rows, cols, joint, importance },
      ]) {
        const expected = encode('js', type, given);
        for (const backend of BACKENDS.filter((name) => name !== 'js')) {
          for (const threads of [1, 3]) {
            const { blocks, stats } = encode(backend, type, { ...given, threads });
            expectSameBytes(blocks, expected.blocks);
            expect(stats, backend).toEqual(expected.stats);
          }
        }
      }
    }
  });

  it('splits into codes, scales and zeros on every backend', () => {
    const { blocks } = encode('js', type, { weights: mixed(4096, 8), rows: 2, cols: 2048 });
    const numbers = decode('js', type, blocks);
    const split = (backend: string) => {
      const [codes, scale, zero] = [
        new Uint8Array(4096),
        new Float32Array(4096 / type.sub),
        new Float32Array(4096 / type.sub),
      ];
      const args = { type: type.id, blocks, codes, scale, zero, threads: 2 };
      openBackend(backend as (typeof BACKENDS)[number]).run('splitBlocks', args);
      return { codes, scale, zero };
    };
    const { codes, scale, zero } = split('js');
    const far = numbers.reduce((worst, value, i) => {
      const group = Math.floor(i / type.sub);
      const size = Math.abs(scale[group]!) * 256 + Math.abs(scale[group]! * zero[group]!);
      return Math.max(worst, Math.abs((codes[i]! - zero[group]!) * scale[group]! - value) / (size || 1));
    }, 0);
    expect(far).toBeLessThan(3e-7);
    expect(scale.length).toBe((4096 / type.weights) * subsOf(type));
    for (const backend of BACKENDS) expect(split(backend), backend).toEqual({ codes, scale, zero });
  });

  it('has less error than ggml', () => {
    const { stats } = encode(BACKENDS[0]!, type, { weights: normal(65_536, 1), rows: 64, cols: 1024 });
    const [error, bound] = GGML[name]!;
    expect(stats[1]! / stats[2]! / error ** 2).toBeLessThan(bound);
  });

  it('has less error where importance is', () => {
    const weights = normal(65_536, 1);
    const given = { weights, rows: 64, cols: 1024 };
    const [told, untold] = [{ importance: IMPORTANCE }, {}].map((more) => {
      const values = decode(BACKENDS[0]!, type, encode(BACKENDS[0]!, type, { ...given, ...more }).blocks);
      let [error, size] = [0, 0];
      for (const [i, w] of weights.entries()) {
        error += IMPORTANCE[i % 1024]! * (w - values[i]!) ** 2;
        size += IMPORTANCE[i % 1024]! * w * w;
      }
      return Math.sqrt(error / size);
    });
    expect(told!).toBeLessThan(Math.min(untold! * 0.99, GGML_WEIGHTED[name] ?? Number.POSITIVE_INFINITY));
  });

  it('has less error by least squares than by rounding, and names the first weight that is not finite', () => {
    const weights = normal(64 * 1024, 11);
    const given = { weights, rows: 64, cols: 1024 };
    const [joint, minmax] = [true, false].map((on) => encode(BACKENDS[0]!, type, { ...given, joint: on }).stats);
    expect(joint![1]).toBeLessThan(minmax![1]! * 0.99);
    for (const backend of [BACKENDS[0]!, 'js']) {
      const bad = Float32Array.from(weights);
      bad[40_000] = Number.NaN;
      bad[60_000] = Number.POSITIVE_INFINITY;
      expect(encode(backend, type, { ...given, weights: bad }).stats[4]).toBe(40_000);
    }
  });
});
