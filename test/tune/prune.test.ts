import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { openModel } from '../../lib/models/model.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { pruneRows } from '../../lib/models/quantize/prune.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { numbersOf, readBack } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// What is pruned stays zero, wherever offsets, scales and zeros are moved to.

const scratch = scratchFolder('tune-prune');
const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(3);
// Steps that are so large that each offset comes as far as it may, and each zero moves.
const tune: TuneOptions = { data: { text }, steps: 3, tokens: 96, length: 32, batch: 2, rate: 0.5 };
const prune = 0.5;

/** Of the model as it is quantized: its weights by name, with those before. */
async function weightsOf(output: string) {
  const floats = readBack(SHIPPED);
  const model = await openModel(output);
  try {
    const names = [...model.shapes.keys()].filter((name) => /layers\..*_proj\.weight$/.test(name));
    return names.map((name) => {
      const { shape } = floats.get(name)!;
      return { width: shape[1]!, before: numbersOf(floats.get(name)!), after: model.tensor(name) as Float32Array };
    });
  } finally {
    await model.close();
  }
}

test.each<readonly [string, QuantConfig & ModelOptions]>([
  ['integer zeros, half of each row', { nbits: 2, groupSize: 64, zeroPoint: 'integer', prune }],
  ['scales in bytes along columns', { nbits: 3, groupSize: 32, zeroPoint: 'integer', metaBits: 8, axis: 0, prune }],
  ['symmetric zeros of an engine, a pattern', { to: 'compressed-tensors', nbits: 4, groupSize: 32, prune: '2:4' }],
])('%s', async (name, own) => {
  const output = join(scratch, name);
  await quantizeModel(SHIPPED, output, { ...own, importance: 'none', tune: { ...tune, model: 2 } });
  const untuned = join(scratch, `${name} untuned`);
  await quantizeModel(SHIPPED, untuned, { ...own, importance: 'none' });
  const plain = await weightsOf(untuned);
  let moved = 0;
  for (const [at, { width, before, after }] of (await weightsOf(output)).entries()) {
    const sparse = before.slice();
    pruneRows(sparse, 'float32', width, own.prune!, undefined);
    expect(sparse.every((weight, i) => weight !== 0 || after[i] === 0)).toBe(true);
    moved += Number(after.some((weight, i) => weight !== plain[at]!.after[i]));
  }
  expect(moved).toBeGreaterThan(7); // a block's layers at the least
});

test('what counts least for the text that is tuned with is pruned, and the report says how much', async () => {
  const output = join(scratch, 'own');
  const own = { nbits: 4, groupSize: 64, zeroPoint: 'integer', prune: '2:4', tune } as const;
  const { importance, totals } = await quantizeModel(SHIPPED, output, own);
  expect(importance).toBe('text');
  expect(totals.sparsity).toBeCloseTo(0.5, 2);
  let others = 0;
  for (const { width, before, after } of await weightsOf(output)) {
    const sparse = before.slice();
    pruneRows(sparse, 'float32', width, own.prune, undefined);
    for (let at = 0; at < after.length; at += 4)
      expect(after.subarray(at, at + 4).filter((weight) => weight === 0).length).toBeGreaterThan(1);
    others += Number(sparse.some((weight, i) => weight === 0 && after[i] !== 0));
  }
  expect(others).toBeGreaterThan(0);
});
