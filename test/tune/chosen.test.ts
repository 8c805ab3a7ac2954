import { expect, test } from 'vitest';
import type { ChosenCodes } from '../../lib/containers/grid.js';
import { highestCode, type QuantConfig } from '../../lib/matrix/config.js';
import { openModel } from '../../lib/models/model.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { quantizeModel, type Weigh } from '../../lib/models/quantize/quantize.js';
import { freshPath, llama, modelFolder } from '../support/checkpoints.js';
import { withChosen } from '../support/chosen.js';
import { randomOf } from '../support/random.mjs';

// What somebody has chosen for a layer is what is stored, whichever way: no solver is asked.

const CASES: readonly (readonly [name: string, options: QuantConfig & ModelOptions])[] = [
  ['hqq, 4 bits', { nbits: 4, groupSize: 64 }],
  ['hqq, 3 bits, which share words of ten', { nbits: 3, groupSize: 32 }],
  ['hqq, groups along columns', { nbits: 2, groupSize: 16, axis: 0 }],
  ['hqq, float32', { nbits: 8, groupSize: 64, metaDtype: 'float32' }],
  ['hqq, integer zeros in bytes', { nbits: 4, groupSize: 16, metaBits: 8, zeroPoint: 'integer' }],
  ['compressed-tensors', { to: 'compressed-tensors', nbits: 4, groupSize: 32 }],
  ['awq', { to: 'awq', groupSize: 32 }],
  ['gptq', { to: 'gptq', nbits: 4, groupSize: 32 }],
  ['torchao', { to: 'torchao', nbits: 4, groupSize: 32 }],
];

/** The model with codes, scales and zeros that were drawn. */
function choosing(drawn: Map<string, ChosenCodes>): Weigh {
  return async (source, plan) => {
    const random = randomOf(7);
    const integer = (below: number) => Math.floor(random() * below);
    for (const { site, form } of plan.shards.flatMap(({ layers }) => layers)) {
      const { nbits, groupSize, zeroPoint } = form.config;
      const [count, most] = [site.shape[0] * site.shape[1], highestCode(nbits)];
      const draw = (length: number, value: () => number) => Float32Array.from({ length }, value);
      drawn.set(site.weight.name, {
        codes: Uint8Array.from({ length: count }, () => integer(most + 1)),
        scale: draw(count / groupSize, () => (1 + integer(64)) / 1024),
        zero: draw(count / groupSize, () =>
          zeroPoint === 'symmetric' ? 2 ** (nbits - 1) : zeroPoint === 'integer' ? integer(most + 1) : integer(64) / 16,
        ),
      });
    }
    return { source: 'none', notes: [], refined: withChosen(source, drawn) };
  };
}

test.each(CASES)('%s', async (_, options) => {
  const input = modelFolder([llama()]);
  const output = freshPath();
  const drawn = new Map<string, ChosenCodes>();
  const report = await quantizeModel(input, output, options, choosing(drawn));
  const model = await openModel(output);
  try {
    expect(drawn.size).toBeGreaterThan(3);
    for (const [name, { codes, scale, zero }] of drawn) {
      const { config } = report.tensors.find((tensor) => tensor.name === name)!;
      const [groupSize, axis] = [config.groupSize!, config.axis];
      const groups = codes.length / groupSize;
      const expected = Float32Array.from(codes, (code, i) => {
        const group = axis === 1 ? Math.floor(i / groupSize) : i % groups;
        return (code - zero[group]!) * scale[group]!;
      });
      const got = model.tensor(name) as Float32Array;
      // Bytes are scales but for a 255th of their range.
      if (config.metaBits === 8) expect(got.every((value, i) => Math.abs(value - expected[i]!) < 0.005)).toBe(true);
      else expect(got).toEqual(expected);
    }
  } finally {
    await model.close();
  }
});
