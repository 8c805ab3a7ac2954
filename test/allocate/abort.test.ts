import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { planModel } from '../../lib/allocate/plan-model.js';
import { activeBackend } from '../../lib/backend/index.js';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { evaluateModels } from '../../lib/runtime/evaluate/evaluate.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// What computes begins nothing any more once it is aborted, wherever it is.

const scratch = scratchFolder('abort');
afterEach(() => vi.restoreAllMocks());

/** Runs `call`, aborts it when the backend begins its `at`-th operation, and counts what it begins afterwards; undefined: it was through. */
async function begunAfterAbort(
  call: (signal: AbortSignal) => Promise<unknown>,
  at: number,
): Promise<number | undefined> {
  const controller = new AbortController();
  const backend = activeBackend();
  const start = backend.start.bind(backend);
  let [begun, after] = [0, 0];
  vi.spyOn(backend, 'start').mockImplementation((operation, args) => {
    if (controller.signal.aborted) after++;
    if (++begun === at) setImmediate(() => controller.abort());
    return start(operation, args);
  });
  const error = await call(controller.signal).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  vi.restoreAllMocks();
  if (error === undefined) return undefined;
  expect(error).toBe(controller.signal.reason);
  return after;
}

describe('an abort ends', () => {
  const few = { tokens: 64, threads: 1 };
  test.each([
    ['collectImportance', (signal: AbortSignal) => collectImportance(SHIPPED, { ...few, signal }), [3, 20]],
    [
      'planModel',
      (signal: AbortSignal) => planModel(SHIPPED, { ...few, targetBits: 3, probeTokens: 16, signal }),
      [40, 90, 300],
    ],
    [
      'evaluateModels',
      (signal: AbortSignal) => evaluateModels(SHIPPED, SHIPPED, { ...few, window: 16, signal }),
      [3, 30, 60],
    ],
    [
      'quantizeModel, which collects first',
      (signal: AbortSignal) => quantizeModel(SHIPPED, join(scratch, 'q'), { ...few, signal }),
      [3, 25],
    ],
  ] as const)('%s', async (_name, call, places) => {
    for (const at of places) expect(await begunAfterAbort(call, at), `at ${at}`).toBeLessThanOrEqual(1);
  });
});
