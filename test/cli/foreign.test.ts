import { describe, expect, test } from 'vitest';
import { freshPath, llama, modelFolder, randomTensor, type Source, type SourceTensor } from '../support/checkpoints.js';
import { expectFailure, hqq } from '../support/cli.js';

// What commands say of models that other tools have quantized, and of adapters.

const packed = (dtype: string, bytes: number, ...shape: number[]): SourceTensor => {
  const count = shape.reduce((product, size) => product * size, 1);
  return { dtype, shape, bytes: new Uint8Array(count * bytes) };
};
const AT = 'model.layers.1.mlp.up_proj';
const { [`${AT}.weight`]: _, ...FLOATS } = llama();
const BYTES: Source = {
  ...FLOATS,
  [`${AT}.weight`]: packed('I8', 1, 64, 128),
  [`${AT}.SCB`]: packed('F32', 4, 64),
  [`${AT}.weight_format`]: packed('U8', 1),
};
const LORA: Source = {
  'base_model.model.q_proj.lora_A.weight': randomTensor([8, 64], 1),
  'base_model.model.q_proj.lora_B.weight': randomTensor([64, 8], 2),
};

describe('inspect', () => {
  test('names the tool that has quantized a model, and what to do', async () => {
    const { status, stdout } = await hqq(['inspect', modelFolder([BYTES])]);
    expect(status).toBe(0);
    expect(stdout.replaceAll(/\s+/g, ' ')).toMatch(
      /not for hqq is quantized already: 1 layer holds bitsandbytes 8-bit weights \("model\.layers\.1\.mlp\.up_proj\.SCB"\)\. Quantize the float original instead/,
    );
    const json = JSON.parse((await hqq(['inspect', modelFolder([LORA]), '--json'])).stdout);
    expect(json.obstacle).toMatchObject({ kind: 'adapter', what: expect.stringContaining('is an adapter') });
  });

  test('has nothing of the kind for floats, and for what hqq has quantized', async () => {
    const [input, out] = [modelFolder([llama()]), freshPath()];
    await hqq(['quantize', input, '--out', out]);
    for (const path of [input, out]) {
      const { status, stdout } = await hqq(['inspect', path]);
      expect(status).toBe(0);
      expect(stdout).not.toContain('not for hqq');
    }
  });
});

describe('compare', () => {
  test('says of a model of another tool what it is', async () => {
    const [input, foreign] = [modelFolder([llama()]), modelFolder([BYTES])];
    const message =
      /Expected models of floats, or what hqq has quantized, to compare, but .* is quantized already: 1 layer holds bitsandbytes 8-bit weights .*\. Give it back its floats with the tool that made it, and compare these\.\n/;
    expectFailure(await hqq(['compare', input, foreign]), 1, message);
    expectFailure(await hqq(['compare', foreign, input]), 1, message);
    expectFailure(
      await hqq(['compare', input, modelFolder([LORA])]),
      1,
      /is an adapter, not a model.*compare that\.\n/,
    );
  });
});
