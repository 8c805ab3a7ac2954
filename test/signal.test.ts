import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { QuantizedLinear } from '../lib/compute/linear.js';
import { dequantize, quantize } from '../lib/compute/quantize.js';
import { onAbort } from '../lib/compute/signal.js';
import type { Weight } from '../lib/matrix/weight.js';
import { compareModels } from '../lib/models/compare.js';
import { quantizeModel } from '../lib/models/quantize/quantize.js';
import { loadLanguageModel } from '../lib/runtime/load.js';
import { freshPath, llama, modelFolder, randomWeights } from './support/checkpoints.js';
import { SHIPPED } from './support/language-models.js';

// One signal for many calls, as a server has it.

const warnings: string[] = [];
const warn = ({ name, message }: Error) => warnings.push(`${name}: ${message}`);
beforeEach(() => void process.on('warning', warn));
afterEach(() => void process.off('warning', warn));

const weight: Weight = { data: randomWeights(64 * 64, 1), dtype: 'float32', shape: [64, 64] };
const listeners = (signal: AbortSignal) => getEventListeners(signal, 'abort').length;

/** Makes many calls at once; while they run, the signal has one listener, and none when they are done. */
async function manyAtOnce(count: number, call: (signal: AbortSignal, index: number) => Promise<unknown>) {
  const { signal } = new AbortController();
  let most = 0;
  const listen = signal.addEventListener.bind(signal) as (...given: unknown[]) => void;
  Object.defineProperty(signal, 'addEventListener', {
    value: (...given: unknown[]) => {
      listen(...given);
      most = Math.max(most, listeners(signal));
    },
  });
  await Promise.all(Array.from({ length: count }, (_, i) => call(signal, i)));
  await new Promise(setImmediate); // warnings come in a turn of their own
  expect(most).toBe(1);
  expect(listeners(signal)).toBe(0);
  expect(warnings).toEqual([]);
}

test('a signal that lacks what calls use is told so', async () => {
  const half = { aborted: false, addEventListener() {}, removeEventListener() {} };
  await expect(quantize(weight, {}, { signal: half as never })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
});

describe('one signal for many calls', () => {
  test('of one matrix: a thousand at once', async () => {
    const q = await quantize(weight);
    const layer = new QuantizedLinear(q);
    const x = randomWeights(64, 2);
    await manyAtOnce(1000, (signal, i) => {
      if (i % 5 === 0) return quantize(weight, {}, { signal });
      if (i % 5 === 1) return dequantize(q, { signal });
      if (i % 5 === 2) return layer.forward(x, { signal });
      if (i % 5 === 3) return QuantizedLinear.forwardMany([layer, layer], x, { signal });
      return QuantizedLinear.fromWeight(weight, {}, { signal });
    });
  });

  test('of one matrix: a thousand after each other', async () => {
    const { signal } = new AbortController();
    for (let i = 0; i < 1000; i++) await quantize(weight, {}, { signal });
    expect(listeners(signal)).toBe(0);
    expect(warnings).toEqual([]);
  });

  test('of whole models', async () => {
    const folder = modelFolder([llama()]);
    const out = freshPath();
    await quantizeModel(folder, out);
    await manyAtOnce(24, (signal, i) =>
      i % 2 === 0 ? quantizeModel(folder, freshPath(), { signal }) : compareModels(folder, out, { signal }),
    );
  });

  test('of language models', async () => {
    const model = await loadLanguageModel(SHIPPED);
    await manyAtOnce(24, async (signal) => {
      for await (const _ of model.generate([1, 2, 3], { maxTokens: 3, signal }));
    });
    await model.close();
  });

  test('stops them all', async () => {
    const control = new AbortController();
    const { signal } = control;
    const calls = Array.from({ length: 100 }, () => quantize(weight, {}, { signal }));
    control.abort(new Error('enough'));
    for (const { status, reason } of (await Promise.allSettled(calls)) as PromiseRejectedResult[]) {
      expect(status).toBe('rejected');
      expect(reason).toBe(signal.reason);
    }
    expect(listeners(signal)).toBe(0);
    await expect(quantize(weight, {}, { signal })).rejects.toBe(signal.reason);
  });
});

describe('onAbort', () => {
  test('calls those who still wait, once', () => {
    const control = new AbortController();
    const called: string[] = [];
    onAbort(control.signal, () => called.push('a'));
    const release = onAbort(control.signal, () => called.push('b'));
    const last = onAbort(control.signal, () => called.push('c'));
    expect(listeners(control.signal)).toBe(1);
    release();
    release();
    control.abort();
    expect(called).toEqual(['a', 'c']);
    last();
    expect(called).toEqual(['a', 'c']);
  });

  test('starts anew after all have let go', () => {
    const control = new AbortController();
    const release = onAbort(control.signal, () => {});
    release();
    expect(listeners(control.signal)).toBe(0);
    let called = 0;
    const other = onAbort(control.signal, () => called++);
    release(); // late, and no longer of any effect
    control.abort();
    other();
    expect(called).toBe(1);
  });
});
