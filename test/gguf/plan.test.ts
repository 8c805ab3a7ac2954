import { describe, expect, it } from 'vitest';
import { planModel } from '../../lib/allocate/plan-model.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { digestOf } from '../../lib/containers/digest.js';
import { openSource } from '../../lib/containers/list.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { failure, freshPath } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

async function fingerprint(path: string): Promise<string> {
  const source = await openSource(path);
  const digest = await digestOf(source);
  await source.close();
  return digest;
}

/** The types of blocks that were chosen for a layer's kind, block by block. */
async function typesOf(model: string, kind: string, options: object): Promise<readonly string[]> {
  const { tensors } = await quantizeModel(model, freshPath('x.gguf'), { importance: 'none', ...options });
  return tensors.filter(({ name }) => name.endsWith(`${kind}.weight`)).map(({ packing }) => packing);
}

describe('a plan of bits for a GGUF file', () => {
  const overrides = { 'model.layers.0.mlp.down_proj': { nbits: 8 }, 'model.layers.2.mlp.*': { nbits: 6 } } as const;

  it('that was made for the folder fits what is made of it, and no other model', async () => {
    const plan = { version: 1, model: await fingerprint(SHIPPED), overrides } as const;
    expect(await typesOf(SHIPPED, 'ffn_down', { plan, type: 'q4_k' })).toEqual(['Q8_0', 'Q4_K', 'Q6_K']);
    const floats = freshPath('f.gguf');
    await dequantizeModel(SHIPPED, floats);
    const error = await failure(() => quantizeModel(floats, freshPath('y.gguf'), { plan, importance: 'none' }));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(/another model/) });
    const any = { version: 1, overrides } as const;
    expect(await typesOf(floats, 'ffn_down', { plan: any, type: 'q4_k' })).toEqual(['Q8_0', 'Q4_K', 'Q6_K']);
  });

  it('has layers by their names in either', async () => {
    const both = { 'model.layers.0.*.down_proj': { nbits: 8 }, 'blk.1.ffn_down': { nbits: 5 } } as const;
    expect(await typesOf(SHIPPED, 'ffn_down', { overrides: both })).toEqual(['Q8_0', 'Q5_K', 'Q4_K']);
    const left = await typesOf(SHIPPED, 'ffn_down', { exclude: ['*.down_proj'] });
    expect(left).toEqual([]);
  });

  it('is made of a GGUF file', async () => {
    const floats = freshPath('f.gguf');
    await dequantizeModel(SHIPPED, floats);
    const options = { targetBits: 6, widths: [4, 8], probeTokens: 16, importance: 'none' } as const;
    const plan = await planModel(floats, options);
    expect(Object.keys(plan.overrides)).toHaveLength(21);
    const bits = Object.values(plan.overrides).map(({ nbits }) => nbits);
    expect(new Set(bits)).toEqual(new Set([4, 8]));
    const types = await typesOf(floats, '', { plan });
    for (const [type, nbits] of [
      ['Q8_0', 8],
      ['Q4_K', 4],
    ] as const)
      expect(types.filter((one) => one === type).length).toBe(
        bits.filter((one) => one === nbits).length + (nbits === 4 ? 1 : 0),
      );
  });
});
