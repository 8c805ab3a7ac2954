import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { layOutArgs, type PanelMemory } from '../../lib/compute/panels.js';
import { quantizeSync } from '../../lib/compute/quantize.js';
import type { QuantizedTensor } from '../../lib/matrix/weight.js';
import { shortestSteps } from '../../lib/runtime/weights/short-meta.js';
import { OWN, Slabs } from '../../lib/runtime/weights/slabs.js';
import { expectSameBytes } from '../support/bytes.js';
import { seededRandom } from '../support/random.mjs';

const random = seededRandom();
const [OUT, IN, GROUP] = [40, 128, 32];
const floats = (count: number) => Float32Array.from({ length: count }, () => random() - 0.5);

type Numbers = (i: number) => number;

/** A matrix of these scales and zeros. */
function matrix(scale: Numbers, zero: Numbers): QuantizedTensor {
  const q = quantizeSync(
    { data: floats(OUT * IN), dtype: 'float32', shape: [OUT, IN] },
    { nbits: 4, groupSize: GROUP, solver: 'minmax' },
  );
  return { ...q, scale: q.scale.map((_, i) => scale(i)), zero: q.zero.map((_, i) => zero(i)) };
}

const halfScales: Numbers = (i) => ((i % 2 ? -1 : 1) * (1024 + i)) / 2 ** 14;
const halfZeros: Numbers = (i) => 7 + (i % 9) / 8;
const CASES: readonly (readonly [name: string, scale: Numbers, zero: Numbers, ends: readonly number[]])[] = [
  ['scales of float16 and one zero, as Q4_0 has them', halfScales, () => 8, [8, 1]],
  ['scales and zeros of float16', halfScales, halfZeros, [-1, 1]],
  ['one zero alone', (i) => 0.1 + i / 7, () => 0, [0, 0]],
  ['zeros of float16 alone', (i) => 0.1 + i / 7, halfZeros, [-1, 0]],
  ['scales of float16 alone', halfScales, (i) => 7.1 + i / 7, [-1, 0]],
  ['the smallest float16, and zeros', (i) => (i % 3) * 2 ** -24, () => 8, [8, 1]],
  ['half of the smallest float16', (i) => (i === 100 ? 2 ** -25 : 0.5), () => 8, [8, 0]],
  ['the largest float16', () => 65504, () => 8, [8, 1]],
  ['what is beyond it', (i) => (i === 159 ? 65536 : 0.5), () => 8, [8, 0]],
  ['what is no number', (i) => (i === 3 ? Infinity : 1), () => 8, [8, 0]],
  ['a zero that is no code', halfScales, () => 8.5, [-1, 1]],
  ['a zero below all codes', halfScales, () => -1, [-1, 1]],
  ['one zero that differs', halfScales, (i) => (i === 159 ? 7 : 8), [-1, 1]],
];

describe.each(availableBackends())('scales and zeros in the shortest way that is exact: %s', (name) => {
  const backend = openBackend(name);

  function panelsOf(q: QuantizedTensor, memory?: PanelMemory) {
    const { args, panels } = layOutArgs(q, memory)!;
    backend.run('layOut', { ...args, threads: 2 });
    return panels;
  }

  test.each(CASES)('%s', async (_, scale, zero, ends) => {
    const q = matrix(scale, zero);
    const whole = panelsOf(q);
    for (const memory of [OWN.panels, new Slabs().panels]) {
      const short = panelsOf(q, await memory(q));
      expect([...short.shape]).toEqual([...whole.shape, ...ends]);
      expect(short.meta.byteLength).toBe(whole.meta.byteLength / (ends[0] === -1 ? 1 : 2) / (ends[1] === 1 ? 2 : 1));
      expectSameBytes(short.codes, whole.codes);
      const weights = [short, whole].map((panels) => {
        const out = new Float32Array(OUT * IN);
        backend.run('expand', { ...panels, out, threads: 2 });
        return out;
      });
      expectSameBytes(weights[0]!, weights[1]!);
      for (const batch of [1, 3, 66])
        for (const int8 of [true, false]) {
          const x = floats(batch * IN);
          const [got, want] = [short, whole].map((panels) => {
            const out = new Float32Array(batch * OUT);
            const layers = [{ ...panels, bias: new Float32Array(0), out }];
            backend.run('linear', { layers, x, int8, threads: 2 });
            return out;
          });
          expectSameBytes(got!, want!);
        }
    }
  });
});

test('those of a large layer are looked at a piece at a time, to the last', () => {
  const [scale, zero] = [new Float32Array(1e6).fill(0.5), new Float32Array(1e6).fill(8)];
  const look = () => {
    const looked = shortestSteps(scale, zero);
    for (let turns = 1; ; turns++) {
      const { done, value } = looked.next();
      if (done) return { turns, ...value };
    }
  };
  expect(look()).toMatchObject({ shared: 8, half: true });
  expect(look().turns).toBeGreaterThan(2e6 / 40_000);
  zero[999_999] = 7;
  expect(look()).toMatchObject({ shared: -1, half: true });
  scale[999_999] = 0.1;
  expect(look()).toMatchObject({ shared: -1, half: false });
});

const native = availableBackends().filter((name) => name !== 'js'); // what is in JavaScript trusts its callers

test.runIf(native.length > 0).each([
  ['a shape of five', [64, 64, 32, 1, 8]],
  ['a zero that is no code', [64, 64, 32, 1, 256, 1]],
  ['a zero below -1', [64, 64, 32, 1, -2, 1]],
  ['neither float16 nor float32', [64, 64, 32, 1, 8, 2]],
])('the addon refuses %s', (_, shape) => {
  const panels = { shape: Int32Array.from(shape), codes: new Uint8Array(2048), meta: new Uint16Array(128) };
  const args = { ...panels, out: new Float32Array(64 * 64), threads: 1 };
  expect(() => openBackend(native[0]!).run('expand', args)).toThrow(/Expected shape to/);
});
