import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { planModel } from '../../lib/allocate/plan-model.js';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { evaluateModels } from '../../lib/runtime/evaluate/evaluate.js';
import { begunAfterAbort } from '../support/aborts.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// What computes begins nothing any more once it is aborted, wherever it is.

const scratch = scratchFolder('abort');
afterEach(() => vi.restoreAllMocks());

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
