import { join } from 'node:path';
import { expect, test } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { resolveQuantConfig } from '../../lib/matrix/options.js';
import { openModel } from '../../lib/models/model.js';
import { pruneRows } from '../../lib/models/quantize/prune.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import type { PlannedLayer } from '../../lib/schemes/scheme.js';
import { beginGrouped } from '../../lib/tune/grouped.js';
import { TunedLayer } from '../../lib/tune/layer.js';
import { numbersOf, randomWeights, readBack } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// What is pruned stays zero, wherever offsets, scales and zeros are moved to.

const scratch = scratchFolder('tune-prune');
const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(3);
const tune: TuneOptions = { data: { text }, steps: 2, tokens: 96, length: 32, batch: 2 };
const machine = { backend: activeBackend(), threads: 1, signal: undefined };

test.each<readonly [string, QuantConfig]>([
  ['integer zeros, half of each row', { nbits: 2, zeroPoint: 'integer', prune: 0.5 }],
  ['scales in bytes along columns', { nbits: 3, zeroPoint: 'integer', metaBits: 8, axis: 0, prune: 0.25 }],
  ['symmetric zeros, a pattern', { nbits: 4, zeroPoint: 'symmetric', prune: '2:4' }],
])('a layer: %s', async (_, own) => {
  const shape = [64, 128] as const;
  const config = { ...resolveQuantConfig({ ...own, groupSize: 32 }), groupSize: 32 };
  const layer = { site: { shape }, form: { config } } as unknown as PlannedLayer;
  const importance = Float32Array.from({ length: shape[1] }, (_, i) => 1 + (i % 5));
  const sparse = randomWeights(shape[0] * shape[1], 3);
  const floats = sparse.slice();
  pruneRows(sparse, 'float32', shape[1], config.prune, importance);
  const storedAs = () => ({ metaDtype: 'float16', zeroFrom: 0 }) as const;
  const start = await beginGrouped(layer, floats, importance, storedAs, machine);
  expect(start.weights).toEqual(sparse);
  const tuned = new TunedLayer({ weight: 'w', module: 'm' }, start);
  const areZeros = (values: Float32Array) => sparse.every((weight, i) => weight !== 0 || values[i] === 0);
  const solved = await tuned.solved(machine);
  const [first, scale, zero] = [solved.values.slice(), solved.chosen.scale.slice(), solved.chosen.zero.slice()];
  expect(areZeros(first)).toBe(true);
  // Steps that are so large that each offset comes as far as it may, and zeros move.
  for (let step = 0; step < 4; step++) {
    await tuned.step(randomWeights(floats.length, step + 7), 0.5, machine);
    expect(areZeros(tuned.values)).toBe(true);
  }
  const { chosen, values } = await tuned.finish(machine);
  expect(areZeros(values)).toBe(true);
  expect(values).not.toEqual(first);
  if (own.zeroPoint === 'integer') expect(chosen.zero).not.toEqual(zero);
  // What was before any step stays as it was.
  expect([solved.chosen.scale, solved.chosen.zero, solved.values]).toEqual([scale, zero, first]);
});

test('a model, its scales moved together at the end', async () => {
  const output = join(scratch, 'model');
  const own = { nbits: 4, groupSize: 64, zeroPoint: 'integer', prune: '2:4' } as const;
  const { importance, totals } = await quantizeModel(SHIPPED, output, { ...own, tune: { ...tune, model: 2 } });
  expect(importance).toBe('text');
  expect(totals.sparsity).toBeCloseTo(0.5, 2);
  const floats = readBack(SHIPPED);
  const model = await openModel(output);
  let [fours, others] = [0, 0];
  for (const name of model.shapes.keys()) {
    if (!/layers\.[02]\.(self_attn|mlp)\..*_proj\.weight$/.test(name)) continue;
    const { shape } = floats.get(name)!;
    const sparse = numbersOf(floats.get(name)!);
    pruneRows(sparse, 'float32', shape[1]!, own.prune, undefined);
    const values = model.tensor(name) as Float32Array;
    for (let at = 0; at < values.length; at += 4) {
      let zeros = 0;
      for (let i = at; i < at + 4; i++) {
        if (values[i] === 0) zeros++;
        else if (sparse[i] === 0) others++;
      }
      if (zeros < 2) fours++;
    }
  }
  await model.close();
  expect(fours).toBe(0);
  // Not those that are least by their size alone.
  expect(others).toBeGreaterThan(1000);
});
