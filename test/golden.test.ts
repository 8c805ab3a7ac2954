import { describe, expect, test } from 'vitest';
import type { Backend } from '../binding.js';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { groupedDequantizeArgs, groupedQuantizeArgs, packArgs } from '../lib/compute/arguments.js';
import type { NBits } from '../lib/matrix/config.js';
import type { DType } from '../lib/matrix/dtype.js';
import { allocateWords, FORMATS, formatNamed, type PackFormat, packedRows } from '../lib/matrix/format.js';
import { geometryOf } from '../lib/matrix/geometry.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { expectSameBytes } from './support/bytes.js';
import { floats, type GoldenCase, golden, goldenTensors, halves } from './support/golden.js';

/** Inputs whose groups meet the reference's absolute guards: the only ones for which ours would differ. */
const GUARDED = ['constrows_64x64', 'tiny_64x64', 'small_64x64', 'scaleclamp_64x64'];

/**
 * How near optimised codes come to the reference's. Measured worst over all cases: 99.86 % equal and 0.054 % of the mean error,
 * because the order of additions differs and the reference stops all groups together.
 */
const EQUAL_CODES = 0.995;
const ERROR_RATIO = 0.001;

/** One code a byte: the codes themselves. */
const BYTES: PackFormat = FORMATS[0]!;

function input(name: string): { data: Float32Array | Uint16Array; dtype: DType; shape: [number, number] } {
  const { file, tensor, dtype, shape } = golden.inputs[name]!;
  const raw = goldenTensors(file).get(tensor)!;
  const types: Record<string, DType> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };
  return { data: dtype === 'F32' ? floats(raw) : halves(raw), dtype: types[dtype]!, shape };
}

function configOf(c: GoldenCase) {
  return resolveQuantConfig({
    nbits: c.nbits as NBits,
    groupSize: c.group_size,
    axis: c.axis,
    solver: c.optimize ? 'hqq' : 'minmax',
    lpNorm: c.lp_norm,
    beta: c.beta,
    kappa: c.kappa,
    iterations: c.max_iters,
    roundZero: c.round_zero,
    referenceGuards: GUARDED.includes(c.input),
  });
}

/** Runs a case with codes packed as `format` has them. */
function quantizeCase(backend: Backend, c: GoldenCase, format: PackFormat) {
  const { data, dtype, shape } = input(c.input);
  const config = configOf(c);
  const { groups, rows, cols } = geometryOf(shape, config);
  const packed = allocateWords(format, packedRows(format, rows) * cols);
  const scale = new Float32Array(groups);
  const zero = new Float32Array(groups);
  const stats = new Float64Array(5);
  backend.run(
    'quantize',
    groupedQuantizeArgs({
      ...{ weights: data, dtype, rows, cols, axis: c.axis, config, format, metaDtype: 'float32', threads: 2 },
      ...{ packed, scale, zero, stats },
    }),
  );
  return { packed, scale, zero, stats, rows, cols, count: rows * cols };
}

const tensorOf = (c: GoldenCase, name: string) => goldenTensors(c.file).get(`${c.name}.${name}`)!;

describe.each(availableBackends())('golden outputs of the reference: %s', (name) => {
  const backend = openBackend(name);

  test('the index holds what it should', () => {
    expect(golden.cases).toHaveLength(252);
    expect(golden.bitpack.cases.length).toBeGreaterThanOrEqual(28);
    expect(golden.lowprec.cases).toHaveLength(10);
  });

  for (const c of golden.cases) {
    test(c.name, () => {
      const got = quantizeCase(backend, c, BYTES);
      const codes = got.packed as Uint8Array;
      const expected = tensorOf(c, 'W_q').bytes;
      expect(codes.length).toBe(expected.length);

      const differences = codes.map((code, i) => Math.abs(code - expected[i]!));
      const equal = differences.filter((difference) => difference === 0).length / codes.length;
      if (c.optimize) {
        expect(differences.reduce((most, difference) => Math.max(most, difference), 0)).toBeLessThanOrEqual(1);
        expect(equal).toBeGreaterThanOrEqual(EQUAL_CODES);
      } else {
        expect(equal).toBe(1);
        expectSameBytes(got.scale, tensorOf(c, 'scale').bytes);
        // -0 and 0 are the same zero point: compare values, not signs.
        expectSameBytes(
          got.zero.map((z) => z + 0),
          floats(tensorOf(c, 'zero')).map((z) => z + 0),
        );
      }
      const meanAbsError = got.stats[0]! / got.count;
      const tolerance = Math.max(ERROR_RATIO * c.final_mean_abs_err, Number.EPSILON);
      expect(Math.abs(meanAbsError - c.final_mean_abs_err)).toBeLessThanOrEqual(tolerance);
      expect(got.stats[4]).toBe(-1);

      if (c.tensors.includes('W_q_packed')) {
        const format = formatNamed(c.packing)!;
        const step = packedRows(format, got.rows);
        const packed = allocateWords(format, step * got.cols);
        backend.run('pack', packArgs({ rows: got.rows, cols: got.cols, format, threads: 1, codes: expected, packed }));
        expectSameBytes(packed, tensorOf(c, 'W_q_packed').bytes);
        const unpacked = new Uint8Array(expected.length);
        backend.run(
          'unpack',
          packArgs({ rows: got.rows, cols: got.cols, format, threads: 2, codes: unpacked, packed }),
        );
        expectSameBytes(unpacked, expected);
        // Quantizing straight into the format gives the codes of the plain one.
        const direct = quantizeCase(backend, c, format);
        backend.run(
          'unpack',
          packArgs({ rows: got.rows, cols: got.cols, format, threads: 1, codes: unpacked, packed: direct.packed }),
        );
        expectSameBytes(unpacked, codes);
      }

      if (c.tensors.includes('W_r')) {
        const out = new Float32Array(got.count);
        backend.run(
          'dequantize',
          groupedDequantizeArgs({
            ...{ packed: expected, axis: c.axis, rows: got.rows, cols: got.cols, format: BYTES, threads: 2 },
            ...{ scale: floats(tensorOf(c, 'scale')), zero: floats(tensorOf(c, 'zero')) },
            ...{ dtype: 'float32', rounding: 'once', out },
          }),
        );
        expectSameBytes(
          out.map((w) => w + 0),
          floats(tensorOf(c, 'W_r')).map((w) => w + 0),
        );
      }
    });
  }

  for (const c of golden.bitpack.cases) {
    test(`bitpack ${c.name}`, () => {
      const tensors = goldenTensors(golden.bitpack.file);
      const packed = tensors.get(`${c.name}.packed`)!;
      const raw = tensors.get(`${c.name}.codes`) ?? tensors.get(`${c.name}.unpacked`) ?? tensors.get(`${c.name}.W_q`);
      const format = formatNamed(c.packing)!;
      const codes = new Uint8Array(c.rows * c.cols);
      const words = format.wordBytes === 1 ? packed.bytes : new Int32Array(packed.bytes.buffer);
      const step = packedRows(format, c.rows);
      expect([step, c.cols]).toEqual(c.packed_shape);
      backend.run('unpack', packArgs({ rows: c.rows, cols: c.cols, format, threads: 1, codes, packed: words }));
      expect(raw).toBeDefined();
      expectSameBytes(codes, raw!.bytes.subarray(0, codes.length));
      const again = allocateWords(format, step * c.cols);
      backend.run('pack', packArgs({ rows: c.rows, cols: c.cols, format, threads: 2, codes, packed: again }));
      expectSameBytes(again, packed.bytes);
    });
  }

  for (const c of golden.lowprec.cases) {
    test(`dequantize in low precision ${c.name}`, () => {
      const tensors = goldenTensors(golden.lowprec.file);
      const of = (key: string) => tensors.get(`${c.name}.${key}`)!;
      const dtype: DType = c.compute_dtype === 'f16' ? 'float16' : 'bfloat16';
      const { rows, cols } = geometryOf(golden.inputs[c.input]!.shape, { groupSize: c.group_size, axis: c.axis });
      const format = FORMATS.findLast((row) => row.codeBits >= c.nbits)!;
      const words = of('W_q_packed').bytes;
      const out = new Uint16Array(rows * cols);
      const wide = (key: string) => {
        const from = halves(of(key));
        const to = new Float32Array(from.length);
        from.forEach((bits, i) => (to[i] = widenOne(bits, dtype)));
        return to;
      };
      backend.run(
        'dequantize',
        groupedDequantizeArgs({
          ...{
            packed: format.wordBytes === 1 ? words : new Int32Array(words.buffer),
            axis: c.axis,
            rows,
            cols,
            format,
          },
          ...{ threads: 1, scale: wide('scale'), zero: wide('zero'), dtype, rounding: 'each', out },
        }),
      );
      expectSameBytes(out, of('W_r').bytes);
    });
  }
});

/** The value of 16 bits, by arithmetic. */
function widenOne(bits: number, dtype: DType): number {
  const [exponentBits, bias] = dtype === 'float16' ? [5, 15] : [8, 127];
  const fractionBits = 15 - exponentBits;
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}
