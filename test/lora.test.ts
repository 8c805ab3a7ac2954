import { createRequire } from 'node:module';
import { expect, test } from 'vitest';
import { QuantizedLinear } from '../lib/compute/linear.js';
import type { LoraFactors } from '../lib/compute/linear-options.js';
import { quantize } from '../lib/compute/quantize.js';
import type * as portable from '../lib/js.js';
import { expectSameBytes } from './support/bytes.js';
import { failure, randomWeights } from './support/checkpoints.js';

// Adapters beside a layer of codes. test/runtime/adapters.test.ts has those of models.

const [OUTS, INS, BATCH] = [48, 64, 5];
const adapter = (rank: number, seed: number, scale?: number): LoraFactors => ({
  a: randomWeights(rank * INS, seed, 0.2),
  b: randomWeights(OUTS * rank, seed + 1, 0.2),
  ...(scale !== undefined && { scale }),
});
const lora = { sql: adapter(3, 1, 0.5), french: adapter(8, 7) };
const data = randomWeights(OUTS * INS, 11, 0.2);
const shape = [OUTS, INS] as const;
const x = randomWeights(BATCH * INS, 13, 0.5);
const bias = randomWeights(OUTS, 17, 0.5);

/** `x . (W + sum of scale * B A)^T + bias` in float64. */
function dense(weights: Float32Array, adapters: readonly LoraFactors[]): Float64Array {
  return Float64Array.from({ length: BATCH * OUTS }, (_, i) => {
    const [row, out] = [Math.floor(i / OUTS), i % OUTS];
    let sum = bias[out]!;
    for (let col = 0; col < INS; col++) {
      let weight = weights[out * INS + col]!;
      for (const { a, b, scale = 1 } of adapters) {
        const rank = a.length / INS;
        for (let k = 0; k < rank; k++) weight += scale * b[out * rank + k]! * a[k * INS + col]!;
      }
      sum += weight * x[row * INS + col]!;
    }
    return sum;
  });
}

const off = (y: Float32Array, expected: Float64Array) =>
  Math.max(...y.map((value, i) => Math.abs(value - expected[i]!)));

const js = createRequire(import.meta.url)('../dist/js.cjs') as typeof portable;

test.each([
  ['on panels', QuantizedLinear, quantize, 1],
  ['in tiles', QuantizedLinear, quantize, 0],
  ['in JavaScript', js.QuantizedLinear as unknown as typeof QuantizedLinear, js.quantize as typeof quantize, 1],
] as const)('%s adapters add to what the codes give', async (_, Linear, quantizeWith, axis) => {
  const q = await quantizeWith({ data, shape }, { nbits: 4, groupSize: 16, axis });
  const layer = await Linear.create(q, { bias, lora });
  const weights = await layer.dequantize();
  for (const [choice, adapters] of [
    [undefined, []],
    ['sql', [lora.sql]],
    ['french', [lora.french]],
    [
      ['sql', 'french'],
      [lora.sql, lora.french],
    ],
    [[], []],
  ] as const) {
    const y = await layer.forward(x, { lora: choice });
    expect(off(y, dense(weights, adapters))).toBeLessThan(1e-5);
    expectSameBytes(layer.forwardSync(x, { lora: choice, threads: 1 }), y);
    const row = x.slice(2 * INS, 3 * INS);
    expectSameBytes(
      await layer.forward(row, { lora: choice, out: new Float32Array(OUTS) }),
      y.slice(2 * OUTS, 3 * OUTS),
    );
  }
  expectSameBytes(
    await layer.forward(x, { lora: ['french', 'sql'] }),
    await layer.forward(x, { lora: ['sql', 'french'] }),
  );
  const plain = new Linear(q, { bias });
  expectSameBytes(await layer.forward(x), await plain.forward(x));
  expect(layer.memoryUsage - plain.memoryUsage).toBe(4 * (INS + OUTS) * (3 + 8));
});

test.each(['create', 'fromWeight'] as const)('arrays are copied when %s is called', async (how) => {
  const q = await quantize({ data, shape }, { groupSize: 16 });
  const own = { a: lora.sql.a.slice(), b: lora.sql.b.slice(), scale: 0.5 };
  const ownBias = bias.slice();
  const options = { bias: ownBias, lora: { own } };
  const making =
    how === 'create'
      ? QuantizedLinear.create(q, options)
      : QuantizedLinear.fromWeight({ data, shape }, { groupSize: 16 }, options);
  for (const array of [own.a, own.b, ownBias]) array.fill(0);
  const layer = await making;
  const expected = await QuantizedLinear.create(q, { bias, lora });
  expectSameBytes(await layer.forward(x, { lora: 'own' }), await expected.forward(x, { lora: 'sql' }));
});

test('fromWeight refuses adapters before it quantizes', async () => {
  const weight = { data, shape };
  const a = new Float32Array(INS + 1);
  // NaN is refused by quantize, which is not asked.
  const error = await failure(() =>
    QuantizedLinear.fromWeight({ ...weight, data: data.map(() => NaN) }, {}, { lora: { own: { ...lora.sql, a } } }),
  );
  expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  expect(error.message).toContain('lora["own"].a');
});

test('what is none is refused', async () => {
  const q = await quantize({ data, shape }, { groupSize: 16 });
  for (const [given, code, text] of [
    [1, 'ERR_INVALID_ARGUMENT', 'lora'],
    [{ own: 1 }, 'ERR_INVALID_ARGUMENT', 'lora["own"]'],
    [{ own: { ...lora.sql, rank: 2 } }, 'ERR_INVALID_OPTION', 'Unknown option "rank"'],
    [{ own: { ...lora.sql, a: new Float32Array(INS + 1) } }, 'ERR_INVALID_ARGUMENT', 'rank rows of 64 numbers'],
    [{ own: { ...lora.sql, a: new Float32Array(0) } }, 'ERR_INVALID_ARGUMENT', 'rank rows of 64 numbers'],
    [{ own: { ...lora.sql, a: new Float64Array(3 * INS) } }, 'ERR_INVALID_ARGUMENT', 'lora["own"].a'],
    [{ own: { ...lora.sql, b: new Float32Array(OUTS) } }, 'ERR_INVALID_ARGUMENT', 'for 48 x 3'],
    [
      { own: { ...lora.sql, b: lora.sql.b.map(() => 3e38), scale: 10 } },
      'ERR_INVALID_ARGUMENT',
      'b times 10 to be finite',
    ],
    [{ own: { ...lora.sql, a: lora.sql.a.map(() => NaN) } }, 'ERR_INVALID_ARGUMENT', 'lora["own"].a to be finite'],
    [null, 'ERR_INVALID_ARGUMENT', 'lora'],
    [{ own: { ...lora.sql, scale: NaN } }, 'ERR_INVALID_OPTION', 'lora["own"].scale to be a finite number'],
  ] as const) {
    const error = await failure(() => QuantizedLinear.create(q, { lora: given as never }));
    expect(error).toMatchObject({ code });
    expect(error.message).toContain(text);
  }
  const option = { code: 'ERR_INVALID_OPTION' };
  const layer = await QuantizedLinear.create(q, { lora });
  const typo = await failure(() => layer.forward(x, { lora: 'frensh' }));
  expect(typo).toMatchObject(option);
  expect(typo.message).toBe('Expected lora to be among "sql", "french", got "frensh". Did you mean "french"?');
  expect(await failure(() => layer.forward(x, { lora: ['sql', 'sql'] }))).toMatchObject(option);
  expect(await failure(() => layer.forwardSync(x, { lora: 1 as never }))).toMatchObject(option);
  const plain = await failure(() => new QuantizedLinear(q).forward(x, { lora: 'sql' }));
  expect(plain.message).toBe('Expected no lora, which the layer is made without, got "sql".');
  expect(await failure(() => new QuantizedLinear(q, { lora } as never))).toMatchObject(option);
  const signal = AbortSignal.abort(new Error('enough'));
  expect((await failure(() => QuantizedLinear.create(q, { lora, signal }))).message).toBe('enough');
});
