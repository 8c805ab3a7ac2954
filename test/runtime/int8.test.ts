import { expect, test } from 'vitest';
import { QuantizedLinear } from '../../lib/compute/linear.js';
import { quantizeSync } from '../../lib/compute/quantize.js';
import { openModel } from '../../lib/models/model.js';
import type { LinearInput } from '../../lib/runtime/blocks/tap.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { SHIPPED } from '../support/language-models.js';

// What rounding x to bytes costs where x is what a trained model gives its layers. docs/numerics.md states these figures.

const TEXT =
  'It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was the ' +
  'epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness.';

/** Each linear layer's weights and what went into it while the model read a text. */
async function layersWithInputs() {
  const [model, checkpoint] = await Promise.all([loadLanguageModel(SHIPPED), openModel(SHIPPED)]);
  const ids = await (await model.tokenizer()).encode(TEXT);
  const layers: { name: string; shape: readonly [number, number]; weights: Float32Array; x: Float32Array }[] = [];
  const tap = ({ module, x }: LinearInput) => {
    if (module === 'lm_head') return;
    const [out, cols] = checkpoint.shape(module);
    layers.push({ name: module, shape: [out!, cols!], weights: checkpoint.tensor(module), x: x.slice() });
  };
  await model.forward(ids, model.createCache(), { tap });
  await Promise.all([model.close(), checkpoint.close()]);
  return layers;
}

test('int8 on the inputs of a trained model', { timeout: 60_000 }, async () => {
  const layers = await layersWithInputs();
  expect(layers).toHaveLength(21);
  const square = (values: Float32Array) => values.reduce((sum, v) => sum + v * v, 0);
  for (const [groupSize, most, middle] of [
    [64, 0.01, 0.004],
    [128, 0.01, 0.004],
  ] as const) {
    const errors = layers.map(({ name, shape, weights, x }) => {
      const q = quantizeSync({ data: weights, dtype: 'float32', shape }, { groupSize });
      const exact = new QuantizedLinear(q).forwardSync(x);
      const rounded = new QuantizedLinear(q, { activations: 'int8' }).forwardSync(x);
      const error = Math.sqrt(square(exact.map((v, i) => v - rounded[i]!)) / square(exact));
      expect(error, `${name}, groups of ${groupSize}`).toBeLessThan(most);
      return error;
    });
    errors.sort((a, b) => a - b);
    console.log(
      `groups of ${groupSize}: ${[0, 10, 20].map((i) => errors[i]!.toFixed(4)).join(', ')} (least, median, most)`,
    );
    expect(errors[10]).toBeLessThan(middle);
  }
});
