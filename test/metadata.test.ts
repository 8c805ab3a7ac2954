import { createHash } from 'node:crypto';
import { type HeapProfiler, Session } from 'node:inspector';
import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { groupedDequantizeArgs } from '../lib/compute/arguments.js';
import { QuantizedLinear } from '../lib/compute/linear.js';
import { metaJob } from '../lib/compute/metadata.js';
import { dequantizeSync, quantize, quantizeSync, unpack } from '../lib/compute/quantize.js';
import { Scratch } from '../lib/containers/scratch.js';
import { highestCode, NBITS, type QuantConfig } from '../lib/matrix/config.js';
import { formatNamed } from '../lib/matrix/format.js';
import { scalesOfSet, tameMeta } from '../lib/matrix/metadata.js';
import type { MetaCodes, QuantizedTensor } from '../lib/matrix/weight.js';
import { setInPieces } from '../lib/schemes/hqq/set-in-pieces.js';
import { expectSameBytes } from './support/bytes.js';
import { randomWeights } from './support/checkpoints.js';
import { floats, goldenBytes, goldenTensors } from './support/golden.js';

const f = Math.fround;

/** The numbers that codes stand for, as Python computes them in float32. */
const widen = ({ codes, scale, zero }: MetaCodes) =>
  Float32Array.from(codes, (code, group) => f(f(code - zero[group % zero.length]!) * scale[group % scale.length]!));

function weight(rows: number, cols: number, seed = 1) {
  return { data: randomWeights(rows * cols, seed), shape: [rows, cols] as const };
}

/** Index of the group of each weight. */
function groupOf({ axis, groupSize, scale }: QuantizedTensor, index: number): number {
  return axis === 1 ? Math.floor(index / groupSize) : index % scale.length;
}

describe.each(availableBackends())('scales and zeros as bytes: %s', (name) => {
  const backend = openBackend(name);

  test('are those of the reference, and so are the weights that they stand for', () => {
    const tensors = goldenTensors('metaquant.safetensors');
    const of = (key: string) => tensors.get(key)!;
    const [scale, zero] = [floats(of('scale')).slice(), floats(of('zero')).slice()];
    const { meta, steps, widening } = metaJob(scale, zero, { referenceGuards: true, zeroPoint: 'float' }, 2);
    for (const { operation, args } of steps) backend.run(operation, args as never);
    for (const { operation, args } of widening) backend.run(operation, args as never);
    for (const kind of ['scale', 'zero'] as const) {
      expectSameBytes(meta[kind].codes, of(`${kind}_q`).bytes);
      expectSameBytes(meta[kind].scale, of(`${kind}_q.scale`).bytes);
      expectSameBytes(meta[kind].zero, of(`${kind}_q.zero`).bytes);
    }
    expectSameBytes(scale, of('scale_deq').bytes);
    expectSameBytes(zero, of('zero_deq').bytes);

    const out = new Float32Array(256 * 512);
    const grid = { rows: 16, cols: 8192, axis: 0, format: formatNamed('2bit_u8')!, threads: 2 } as const;
    const stored = { packed: of('W_q_packed').bytes, scale, zero };
    backend.run('dequantize', groupedDequantizeArgs({ ...grid, ...stored, dtype: 'float32', rounding: 'once', out }));
    const file = goldenBytes('metaquant.safetensors');
    const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString());
    const digest = createHash('sha256').update(out).digest('hex');
    expect(digest).toBe(header.__metadata__['W_r.sha256']);
  });
});

test('scales of one large set are quantized in pieces, to the bytes of the whole', () => {
  const backend = openBackend('js');
  const count = 70_001; // no number from 16 to 128 divides it: its scales are one set, too
  expect(scalesOfSet(count)).toBe(count);
  const scale = Float32Array.from(randomWeights(count, 5), Math.abs);
  const zero = Float32Array.from(randomWeights(count, 6));
  [scale[40_000], zero[69_999], zero[3]] = [9, -20, 30]; // extremes of other pieces than most
  const config = { referenceGuards: false, zeroPoint: 'float' } as const;
  const { meta, steps } = metaJob(scale, zero, config, 2, undefined, (...set) => setInPieces(...set, new Scratch()));
  let most = 0;
  for (const { operation, args } of steps) {
    backend.run(operation, args as never);
    if (operation === 'quantize') most = Math.max(most, args.weights.length);
  }
  expect(most).toBeLessThan(count / 2);
  for (const [values, made] of [
    [scale, meta.scale],
    [zero, meta.zero],
  ] as const) {
    const data = values.slice();
    const whole = quantizeSync({ data, shape: [1, count] }, { nbits: 8, solver: 'minmax', groupSize: null });
    expectSameBytes(made.scale, whole.scale);
    expectSameBytes(made.zero, whole.zero);
    expectSameBytes(made.codes, unpack(whole));
  }
});

describe('metaBits 8', () => {
  for (const nbits of NBITS) {
    for (const axis of [0, 1] as const) {
      test(`${nbits} bits, axis ${axis}: codes are the nearest of what is stored`, async () => {
        const { data, shape } = weight(64, 96, nbits * 7 + axis);
        const config: QuantConfig = { nbits, axis, groupSize: 32, metaBits: 8 };
        const q = quantizeSync({ data, shape }, config);
        expect(await quantize({ data, shape }, config)).toEqual(q);
        expectSameBytes(q.scale, widen(q.meta!.scale!));
        expectSameBytes(q.zero, widen(q.meta!.zero!));
        expect(q.meta!.scale!.scale).toHaveLength(192 / scalesOfSet(192));
        expect(q.meta!.zero!.scale).toHaveLength(1);
        const codes = unpack(q);
        let squared = 0;
        data.forEach((w, i) => {
          const group = groupOf(q, i);
          const [s, z] = [q.scale[group]!, q.zero[group]!];
          const place = Math.min(Math.max(w / s + z, 0), highestCode(nbits));
          expect(Math.abs(codes[i]! - place)).toBeLessThanOrEqual(0.5 + 1e-4);
          squared += (w - (codes[i]! - z) * s) ** 2;
        });
        expect(Math.abs(q.stats.meanSquaredError / (squared / data.length) - 1)).toBeLessThan(1e-4);
        // What rounding them costs.
        const exact = quantizeSync({ data, shape }, { ...config, metaBits: 16 });
        expect(exact.meta).toBeUndefined();
        expect(q.stats.relativeError).toBeLessThan(exact.stats.relativeError * (nbits === 8 ? 1.2 : 1.03));
      });
    }
  }

  test.each([
    [192, 96],
    [128 * 7, 128],
    [7, 7],
    [262, 262],
    [254, 127],
    [1, 1],
  ])('%i scales are in sets of %i', (groups, size) => expect(scalesOfSet(groups)).toBe(size));

  test.each([0, 1] as const)('groups of equal weights take nothing from the others, axis %i', (axis) => {
    const { data, shape } = weight(256, 64);
    const plain = quantizeSync({ data, shape }, { axis, metaBits: 8 });
    const rows = 256;
    const set = (group: number, value: number) => {
      for (let i = 0; i < 64; i++) data[axis === 1 ? group * 64 + i : group + i * rows] = value;
    };
    set(3, 0);
    set(7, 0.013);
    set(11, -0.02);
    const q = quantizeSync({ data, shape }, { axis, metaBits: 8 });
    expect(q.stats.relativeError).toBeLessThan(plain.stats.relativeError * 1.1);
    const out = dequantizeSync(q);
    const at = (group: number) => out[axis === 1 ? group * 64 : group]!;
    expect(at(3)).toBeCloseTo(0, 3);
    expect(at(7)).toBeCloseTo(0.013, 3);
    expect(at(11)).toBeCloseTo(-0.02, 3);
  });

  test('nor does one whose weights are far from 0', () => {
    const { data, shape } = weight(256, 64);
    const { relativeError } = quantizeSync({ data, shape }, { metaBits: 8 }).stats;
    const others = data.slice(64);
    for (let i = 0; i < 64; i++) data[i] = 0.3 + data[i]! / 100;
    const out = dequantizeSync(quantizeSync({ data, shape }, { metaBits: 8 })).subarray(64);
    const [error, size] = [
      others.reduce((s, w, i) => s + (w - out[i]!) ** 2, 0),
      others.reduce((s, w) => s + w * w, 0),
    ];
    expect(Math.sqrt(error / size)).toBeLessThan(relativeError * 1.05);
  });

  test('zeros everywhere stay zeros, and tiny weights what they are', () => {
    const zeros = quantizeSync({ data: new Float32Array(4096), shape: [64, 64] }, { metaBits: 8 });
    expect([...new Set(dequantizeSync(zeros))]).toEqual([0]);
    expect(zeros.stats.relativeError).toBe(0);
    const { data, shape } = weight(64, 64);
    const tiny = quantizeSync({ data: data.map((w) => w * 1e-12), shape }, { metaBits: 8 });
    const usual = quantizeSync({ data, shape }, { metaBits: 8 });
    expect(tiny.stats.relativeError).toBeCloseTo(usual.stats.relativeError, 4);
  });

  test('refuses scales that are infinite, and weights that are no numbers', () => {
    const far = new Float32Array(64).map((_, i) => (i % 2 === 0 ? 3e38 : -3e38));
    const config: QuantConfig = { metaBits: 8, solver: 'hqq', referenceGuards: true };
    expect(() => quantizeSync({ data: far, shape: [1, 64] }, config)).toThrow(/a scale and a zero that float32 holds/);
    const data = new Float32Array(64);
    data[5] = NaN;
    expect(() => quantizeSync({ data, shape: [1, 64] }, { metaBits: 8 })).toThrow(/NaN at row 0, column 5/);
    expect(() => quantizeSync({ data, shape: [1, 64] }, { metaBits: 4 as 8 })).toThrow(
      'Expected metaBits to be one of 16, 8, got 4.',
    );
  });

  test.each(['integer', 'symmetric'] as const)('%s zeros stay what they are', (zeroPoint) => {
    const { data, shape } = weight(64, 96);
    const config: QuantConfig = { solver: 'joint', zeroPoint, metaBits: 8, groupSize: 32 };
    const q = quantizeSync({ data, shape }, config);
    expect(q.zero.every((zero) => Number.isInteger(zero) && zero >= 0 && zero <= 15)).toBe(true);
    expectSameBytes(q.zero, widen(q.meta!.zero!));
    expectSameBytes(q.scale, widen(q.meta!.scale!));
    const plain = quantizeSync({ data, shape }, { ...config, metaBits: 16 });
    expectSameBytes(q.zero, plain.zero);
    expect(q.stats.relativeError).toBeLessThan(plain.stats.relativeError * 1.03);
  });

  test("joint at 4.52 bits per weight is better than ggml's Q4_K at 4.5", () => {
    let state = 1;
    const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 + 2 ** -33;
    const gaussian = Float32Array.from({ length: 512 * 1024 }, () => {
      return 0.02 * Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
    });
    const q = quantizeSync({ data: gaussian, shape: [512, 1024] }, { solver: 'joint', metaBits: 8, groupSize: 32 });
    expect(q.stats.relativeError).toBeLessThan(0.0713);
  });

  test('refuses a type for scales that are bytes', () => {
    expect(() => quantizeSync(weight(64, 64), { metaBits: 8, scaleDtype: 'float16' })).toThrow(
      'Expected scaleDtype to be float32 where metaBits is 8, got "float16".',
    );
  });

  test('products read what is stored', () => {
    const { data, shape } = weight(96, 128);
    const q = quantizeSync({ data, shape }, { metaBits: 8, groupSize: 32 });
    const x = randomWeights(128, 9, 1);
    const y = new QuantizedLinear(q).forwardSync(x);
    const w = dequantizeSync(q);
    y.forEach((value, o) => {
      const exact = x.reduce((sum, xi, i) => sum + xi * w[o * 128 + i]!, 0);
      expect(value).toBeCloseTo(exact, 4);
    });
  });
});

test('keeping scales and zeros within bounds leaves no garbage behind: a model has millions of groups', () => {
  const groups = 200_000;
  const scale = new Float32Array(groups).fill(0.5);
  const zero = new Float32Array(groups).fill(3);
  const session = new Session();
  session.connect();
  session.post('HeapProfiler.startSampling', {
    samplingInterval: 4096,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  } as HeapProfiler.StartSamplingParameterType);
  tameMeta(scale, zero, 4, { weights: new Float32Array(groups), rows: groups, cols: 1, axis: 1 });
  let bytes = 0;
  const count = ({ selfSize, children, callFrame }: HeapProfiler.SamplingHeapProfileNode, inside: boolean): void => {
    const within = inside || callFrame.functionName === 'tameMeta';
    if (within) bytes += selfSize;
    for (const child of children) count(child, within);
  };
  session.post('HeapProfiler.stopSampling', (_, { profile }) => count(profile.head, false));
  session.disconnect();
  expect(bytes).toBeLessThan(20 * groups); // numbers in boxes until the loop is compiled; a pair a group was 51
});
