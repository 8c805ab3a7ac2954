import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadLanguageModel } from '../../../lib/runtime/load.js';
import { type ExpertLayout, GOLDEN_MODELS, goldenIds, writeGolden } from '../../support/golden-models.js';
import { scratchFolder } from '../../support/scratch.js';

const work = scratchFolder('transformers');
const cases = GOLDEN_MODELS.cases.flatMap((golden) => {
  const layouts: ExpertLayout[] = golden.config.num_local_experts ? ['apart', 'stacked'] : ['apart'];
  return layouts.map((experts) => ({
    ...golden,
    name: layouts.length > 1 ? `${golden.name}, ${experts}` : golden.name,
    experts,
  }));
});

describe('logits of transformers', () => {
  test.each(cases)('$name', async ({ experts, ...golden }) => {
    const folder = writeGolden(join(work, golden.name.replaceAll(/\W/g, '-')), golden, experts);
    const model = await loadLanguageModel(folder, { maxContext: 512 });
    for (const [i, length] of GOLDEN_MODELS.lengths.entries()) {
      const logits = golden.logits[i]!;
      const got = await model.forward(goldenIds(length), model.createCache());
      const most = Math.max(...logits.map(Math.abs));
      // transformers turns heads by angles in float32: at position 300 they are off by some 1e-5.
      logits.forEach((want, at) =>
        expect(Math.abs(got[at]! - want) / most, `${length} tokens, logit ${at}`).toBeLessThan(1e-4),
      );
    }
    await model.close();
  });
});
