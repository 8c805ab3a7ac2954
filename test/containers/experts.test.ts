import { afterEach, describe, expect, it } from 'vitest';
import type { LinearSite } from '../../lib/containers/container.js';
import { expertSites } from '../../lib/containers/experts.js';
import { openSource } from '../../lib/containers/list.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { architectureOf } from '../../lib/models/select/architecture.js';
import { modulesOf } from '../../lib/models/select/known.js';
import { SCHEMES } from '../../lib/schemes/list.js';
import {
  failure,
  freshPath,
  modelFolder,
  numbersOf,
  randomTensor,
  readBack,
  type Source,
  tensorOf,
} from '../support/checkpoints.js';
import { toyScheme } from '../support/toys/scheme.js';

// Stacks of experts, [experts, in, out] and [experts, out, in]: what a site says of them, and what becomes of them.

const schemes = [...SCHEMES];
afterEach(() => {
  SCHEMES.splice(0, Infinity, ...schemes);
});

const EXPERTS = 3;
const AT = 'model.layers.0';

/** gpt-oss: both stacks lie [experts, in, out], with biases that are matrices. */
const GPT_OSS: Source = {
  [`${AT}.self_attn.q_proj.weight`]: randomTensor([64, 32], 1),
  [`${AT}.mlp.experts.gate_up_proj`]: randomTensor([EXPERTS, 32, 96], 2, 'bfloat16'),
  [`${AT}.mlp.experts.gate_up_proj_bias`]: randomTensor([EXPERTS, 96], 3, 'bfloat16'),
  [`${AT}.mlp.experts.down_proj`]: randomTensor([EXPERTS, 48, 32], 4, 'bfloat16'),
  [`${AT}.mlp.experts.down_proj_bias`]: randomTensor([EXPERTS, 32], 5, 'bfloat16'),
  [`${AT}.mlp.router.weight`]: randomTensor([EXPERTS, 32], 6),
};
/** JetMoe: modules with a weight [experts, out, in]. */
const JETMOE: Source = {
  [`${AT}.self_attention.kv_proj.weight`]: randomTensor([64, 32], 1),
  [`${AT}.self_attention.experts.input_linear.weight`]: randomTensor([EXPERTS, 96, 32], 2),
};
const configOf = (name: string, type: string) => JSON.stringify({ architectures: [name], model_type: type });
const gptOss = () => modelFolder([GPT_OSS], { config: configOf('GptOssForCausalLM', 'gpt_oss') });
const jetMoe = () => modelFolder([JETMOE], { config: configOf('JetMoeForCausalLM', 'jetmoe') });

async function stacksOf(path: string): Promise<readonly LinearSite[]> {
  const source = await openSource(path);
  try {
    const known = await architectureOf(source.envelope.config, modulesOf(source.entries.values()));
    const items = [...source.envelope.linears(source.entries, known)];
    return items.filter((item): item is LinearSite => 'experts' in item);
  } finally {
    await source.close();
  }
}

/** The matrix of an expert as `[out, in]`. */
function expertOf(stack: string, index: number, stored: LinearSite['stored']): Float32Array {
  const tensor = GPT_OSS[stack] ?? JETMOE[stack]!;
  const [, rows, cols] = tensor.shape as [number, number, number];
  const own = numbersOf(tensor).subarray(index * rows * cols, (index + 1) * rows * cols);
  if (stored === 'out-in') return own;
  return Float32Array.from({ length: rows * cols }, (_, k) => own[(k % rows) * cols + Math.floor(k / rows)]!);
}

describe('a stack of experts', () => {
  it('is a site that says how many there are, which way they lie and what their biases are', async () => {
    const sites = await stacksOf(gptOss());
    expect(sites.map(({ name, shape, stored, experts, bias }) => [name, shape, stored, experts, bias?.name])).toEqual([
      [`${AT}.mlp.experts.gate_up_proj`, [96, 32], 'in-out', EXPERTS, `${AT}.mlp.experts.gate_up_proj_bias`],
      [`${AT}.mlp.experts.down_proj`, [32, 48], 'in-out', EXPERTS, `${AT}.mlp.experts.down_proj_bias`],
    ]);
    const granite = { [`${AT}.self_attn.q_proj.weight`]: JETMOE[`${AT}.self_attention.kv_proj.weight`]! };
    const path = modelFolder(
      [{ ...granite, [`${AT}.block_sparse_moe.input_linear.weight`]: randomTensor([EXPERTS, 96, 32], 2) }],
      {
        config: configOf('GraniteMoeForCausalLM', 'granitemoe'),
      },
    );
    expect((await stacksOf(path)).map(({ name, experts }) => [name, experts])).toEqual([
      [`${AT}.block_sparse_moe.input_linear`, EXPERTS], // whose module alone is called after its experts
    ]);
    const [only] = await stacksOf(jetMoe());
    expect(only).toMatchObject({ shape: [96, 32], stored: 'out-in', experts: EXPERTS });
    expect(only!.bias).toBeUndefined();
  });

  it('gives its experts as layers that are parts of its tensors', async () => {
    const [gateUp] = await stacksOf(gptOss());
    const sites = [...expertSites(gateUp!)];
    expect(sites.map(({ name }) => name)).toEqual(
      [0, 1, 2].flatMap((i) => ['gate_proj', 'up_proj'].map((leaf) => `${AT}.mlp.experts.${i}.${leaf}`)),
    );
    const { weight, bias } = gateUp!;
    const taken = { first: 1, step: 2, each: 48, width: 96 }; // gpt-oss: outputs of the two take turns
    expect(sites[3]).toMatchObject({
      ...{ shape: [48, 32], stored: 'in-out', partOf: [weight.name, bias!.name] },
      weight: {
        ...{ name: `${AT}.mlp.experts.1.up_proj.weight`, shape: [32, 48], begin: weight.begin + 2 * 32 * 96 },
        part: { of: weight.name, columns: taken },
      },
      bias: {
        ...{ name: `${AT}.mlp.experts.1.up_proj.bias`, shape: [48], begin: bias!.begin + 2 * 96 },
        part: { of: bias!.name, columns: taken },
      },
    });
    expect([...expertSites((await stacksOf(gptOss()))[1]!)][2]!.weight).toMatchObject({
      name: `${AT}.mlp.experts.2.down_proj.weight`,
      shape: [48, 32],
    });
    expect(sites.every((site) => !('experts' in site))).toBe(true);
    const jet = [...expertSites((await stacksOf(jetMoe()))[0]!)];
    expect(jet[2]!.name).toBe(`${AT}.self_attention.experts.2.input_linear`);
    const outside = [...expertSites({ ...(await stacksOf(jetMoe()))[0]!, name: 'mlp.input_linear' })];
    expect(outside[2]!.name).toBe('mlp.input_linear.2');
  });

  it('stays as it is in HQQ, with what can be done', async () => {
    const out = freshPath();
    const { tensors, dense, notes } = await quantizeModel(gptOss(), out);
    expect(tensors.map(({ name }) => name)).toEqual([`${AT}.self_attn.q_proj.weight`]);
    const reasons = Object.fromEntries(dense.map(({ name, reason }) => [name, reason]));
    expect(reasons[`${AT}.mlp.experts.down_proj`]).toBe('experts in one 3-D tensor');
    expect(notes.find((note) => note.includes('all experts'))).toMatch(
      /^2 tensors \("model\.layers\.0\.mlp\.experts\.gate_up_proj" and 1 more\) hold all experts of a layer and stay as they are: a layer of HQQ is one matrix\./,
    );
    const asked = failure(() => quantizeModel(gptOss(), freshPath(), { include: '*.experts.down_proj' }));
    expect((await asked).message).toMatch(/stays as it is: experts in one 3-D tensor/);
    const dry = await quantizeModel(jetMoe(), freshPath(), { dryRun: true });
    expect(dry.notes.find((note) => note.includes('holds all experts'))).toContain('stays as it is');
  });

  it('stays where experts lie one below the other in a matrix, which a note says', async () => {
    const block = 'transformer.blocks.0';
    const names = ['w1', 'v1', 'w2'].map((leaf) => `${block}.ffn.experts.mlp.${leaf}`);
    const source = Object.fromEntries(
      [`${block}.norm_attn_norm.attn.Wqkv.weight`, ...names].map((name, i) => [name, randomTensor([256, 64], i)]),
    );
    const config = JSON.stringify({ architectures: ['DbrxForCausalLM'], model_type: 'dbrx' });
    const { tensors, dense, notes } = await quantizeModel(modelFolder([source], { config }), freshPath());
    expect(tensors.map(({ name }) => name)).toEqual([`${block}.norm_attn_norm.attn.Wqkv.weight`]);
    expect(Object.fromEntries(dense.map(({ name, reason }) => [name, reason]))).toEqual(
      Object.fromEntries(names.map((name) => [name, 'experts in one matrix'])),
    );
    expect(notes).toContainEqual(
      expect.stringMatching(
        /^3 tensors \("transformer\.blocks\.0\.ffn\.experts\.mlp\.w1" and 2 more\) hold all experts of a layer in one matrix and stay as they are: /,
      ),
    );
  });

  it.each([
    ['GptOss', gptOss, 'in-out', `${AT}.mlp.experts.down_proj`, `${AT}.mlp.experts.*.down_proj`],
    [
      'JetMoe',
      jetMoe,
      'out-in',
      `${AT}.self_attention.experts.input_linear.weight`,
      `${AT}.self_attention.experts.*.input_linear`,
    ],
  ] as const)(
    'becomes a layer for each expert where the scheme has it so: %s',
    async (_, make, stored, stack, names) => {
      SCHEMES.unshift({ ...toyScheme, experts: () => true } as (typeof SCHEMES)[number]);
      const [out, back] = [freshPath(), freshPath()];
      const input = make();
      const report = await quantizeModel(input, out);
      for (let i = 0; i < EXPERTS; i++)
        expect(report.tensors.map(({ name }) => name)).toContain(`${names.replace('*', String(i))}.weight`);
      expect(report.dense.map(({ name }) => name)).not.toContain(stack);
      expect([...readBack(out).keys()].filter((name) => name === stack || name === `${stack}_bias`)).toEqual([]);
      await dequantizeModel(out, back);
      const given = readBack(back);
      for (let i = 0; i < EXPERTS; i++) {
        const bytes = given.get(`${names.replace('*', String(i))}.weight`)!.bytes;
        const got = new Float32Array(Uint8Array.from(bytes).buffer);
        const lies = stored === 'in-out' ? turned(got, 48, 32) : got;
        const wanted = expertOf(stack, i, stored);
        expect(lies).toHaveLength(wanted.length);
        expect(lies.reduce((far, w, k) => Math.max(far, Math.abs(w - wanted[k]!)), 0)).toBeLessThan(0.003);
      }
      if (stored === 'out-in') return;
      const bias = GPT_OSS[`${stack}_bias`]!;
      for (let i = 0; i < EXPERTS; i++) {
        const { bytes } = readBack(out).get(`${names.replace('*', String(i))}.bias`)!;
        expect(Buffer.from(bytes).equals(Buffer.from(bias.bytes).subarray(i * 64, (i + 1) * 64))).toBe(true);
      }
      const chosen = await quantizeModel(input, freshPath(), { exclude: '*.experts.down_proj', dryRun: true });
      expect(chosen.tensors.map(({ name }) => name)).toContain(`${AT}.mlp.experts.0.gate_proj.weight`);
      expect(chosen.dense.find(({ name }) => name === stack)?.reason).toBe('excluded');
    },
  );

  it('stays where nothing says which way it lies', async () => {
    const path = modelFolder([{ 'a.weight': randomTensor([64, 64], 1), 'l.experts.up': randomTensor([2, 8, 8], 2) }]);
    const { dense } = await quantizeModel(path, freshPath());
    expect(dense.find(({ name }) => name === 'l.experts.up')?.reason).toBe(
      'experts in one 3-D tensor, of which nothing says which way they lie',
    );
    const odd = { ...GPT_OSS, [`${AT}.mlp.experts.down_proj_bias`]: tensorOf([1, 2, 3], [3]) };
    const strange = await quantizeModel(
      modelFolder([odd], { config: configOf('GptOssForCausalLM', 'gpt_oss') }),
      freshPath(),
    );
    expect(strange.dense.find(({ name }) => name.endsWith('down_proj'))?.reason).toBe('its bias is F32 [3]');
  });
});

function turned(values: Float32Array, rows: number, cols: number): Float32Array {
  return Float32Array.from({ length: rows * cols }, (_, k) => values[(k % rows) * cols + Math.floor(k / rows)]!);
}
