import { describe, expect, test } from 'vitest';
import { dequantizeSync, quantize, quantizeSync } from '../../lib/compute/quantize.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import type { QuantizedTensor, QuantizeOptions } from '../../lib/matrix/weight.js';
import { numbersOf, randomTensor } from '../support/checkpoints.js';

// Importance as an option of quantize. test/importance.test.ts looks at the seam below, and at its numbers.

const [OUT, IN] = [48, 96] as const;
const weight = { data: Float32Array.from(numbersOf(randomTensor([OUT, IN], 1))), shape: [OUT, IN] } as const;
/** As trained models have it: a few features count a thousand times as much as others. */
const importance = Float32Array.from({ length: IN }, (_, i) => (i % 11 === 3 ? 50 : 0.05 + ((i * 7) % 13) / 13));

/** Sum of squared errors, each times what its feature counts. */
function weighted(q: QuantizedTensor): number {
  return dequantizeSync(q).reduce((sum, value, i) => sum + importance[i % IN]! * (value - weight.data[i]!) ** 2, 0);
}

const LAYOUTS: readonly QuantConfig[] = [
  { groupSize: 32, axis: 1 },
  { groupSize: 64, axis: 1 }, // groups that begin in the middle of a row
  { groupSize: null, axis: 1 },
  { groupSize: 72, axis: 0 },
  { groupSize: 32, axis: 1, metaBits: 8 },
];

describe('importance', () => {
  test.each(LAYOUTS)('makes what counts more exact: %j', async (layout) => {
    for (const solver of ['joint', 'hqq'] as const) {
      const config = { ...layout, solver, nbits: 3 } as const;
      const [plain, own] = [quantizeSync(weight, config), quantizeSync(weight, config, { importance })];
      expect(weighted(own)).toBeLessThan((solver === 'joint' ? 0.8 : 1) * weighted(plain));
      expect(await quantize(weight, config, { importance })).toEqual(own);
    }
  });

  test('that is all alike changes nothing', () => {
    const config = { solver: 'joint', nbits: 3, groupSize: 32 } as const;
    const alike = quantizeSync(weight, config, { importance: new Float32Array(IN).fill(0.3) });
    expect(alike).toEqual(quantizeSync(weight, config));
  });

  test('only its proportions matter', () => {
    const config = { solver: 'joint', nbits: 2, groupSize: 32 } as const;
    const scaled = quantizeSync(weight, config, { importance: importance.map((value) => value * 2 ** 20) });
    expect(scaled).toEqual(quantizeSync(weight, config, { importance }));
  });

  test('is copied: what the caller writes meanwhile is not read', async () => {
    const own = importance.slice();
    const running = quantize(weight, { solver: 'joint', nbits: 3 }, { importance: own });
    own.fill(NaN);
    expect(await running).toEqual(quantizeSync(weight, { solver: 'joint', nbits: 3 }, { importance }));
  });

  test('is traced, too', () => {
    const { trace } = quantizeSync(weight, { solver: 'joint', nbits: 3, trace: true }, { importance });
    expect(trace!.length).toBeGreaterThan(1);
  });

  test.each([
    [{ importance: new Float32Array(IN - 1) }, /Expected importance to have 96 elements for 96 input features, got 95/],
    [{ importance: new Float32Array(IN).fill(-1) }, /at least 0, got -1 at index 0/],
    [{ importance: Float32Array.from(importance, (v, i) => (i === 5 ? NaN : v)) }, /got NaN at index 5/],
    [{ importance: Array.from(importance) }, /Expected importance to be a Float32Array/],
  ])('that is wrong is refused: %#', (run, message) => {
    expect(() => quantizeSync(weight, {}, run as QuantizeOptions)).toThrow(message);
  });

  test('belongs to the options of the call', () => {
    expect(() => quantizeSync(weight, { importance } as QuantConfig)).toThrow(
      /Expected importance in another argument: quantize\(weight, config, \{ importance \}\)/,
    );
  });
});
