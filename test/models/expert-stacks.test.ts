import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { planConversion, writeShard } from '../../lib/models/quantize/shards.js';
import {
  failure,
  freshPath,
  modelFolder,
  numbersOf,
  randomTensor,
  readBack,
  type Source,
  type SourceTensor,
  tensorOf,
} from '../support/checkpoints.js';

// Stacks of experts as compressed-tensors has them: a layer for each expert, gate and up apart, as models are saved whose experts are
// apart already.

const [EXPERTS, HIDDEN, INNER] = [3, 64, 96];
const AT = 'model.layers.0.mlp';
const ATTENTION: Source = { 'model.layers.0.self_attn.q_proj.weight': randomTensor([64, HIDDEN], 1) };

type Lies = 'out-in' | 'in-out';
type Order = 'halves' | 'interleaved';

/** Weights of an expert, `[out, in]`. */
const weights = (expert: number, layer: string): SourceTensor => {
  const shape = layer === 'down' ? [HIDDEN, INNER] : [INNER, HIDDEN];
  return randomTensor(shape as [number, number], 10 * expert + ['gate', 'up', 'down'].indexOf(layer) + 2);
};

/** Both, `[out, in]`, as one matrix. */
function joined(expert: number, order: Order): Float32Array {
  const [gate, up] = [numbersOf(weights(expert, 'gate')), numbersOf(weights(expert, 'up'))];
  if (order === 'halves') return Float32Array.from([...gate, ...up]);
  return Float32Array.from({ length: 2 * INNER * HIDDEN }, (_, i) => {
    const row = Math.floor(i / HIDDEN);
    return (row % 2 === 0 ? gate : up)[(row >> 1) * HIDDEN + (i % HIDDEN)]!;
  });
}

function stack(matrices: readonly Float32Array[], [outs, ins]: readonly [number, number], lies: Lies): SourceTensor {
  const turned = (values: Float32Array) =>
    Float32Array.from(values, (_, i) => values[(i % outs) * ins + Math.floor(i / outs)]!);
  const values = matrices.flatMap((matrix) => [...(lies === 'out-in' ? matrix : turned(matrix))]);
  return tensorOf(Float32Array.from(values), [matrices.length, ...(lies === 'out-in' ? [outs, ins] : [ins, outs])]);
}

const EACH = Array.from({ length: EXPERTS }, (_, i) => i);
const stacked = (lies: Lies, order: Order): Source => ({
  ...ATTENTION,
  [`${AT}.experts.gate_up_proj`]: stack(
    EACH.map((i) => joined(i, order)),
    [2 * INNER, HIDDEN],
    lies,
  ),
  [`${AT}.experts.down_proj`]: stack(
    EACH.map((i) => numbersOf(weights(i, 'down'))),
    [HIDDEN, INNER],
    lies,
  ),
});
const apart = (names: readonly string[]): Source => ({
  ...ATTENTION,
  ...Object.fromEntries(
    EACH.flatMap((i) =>
      ['gate', 'up', 'down'].map((layer, k) => [`${AT}.experts.${i}.${names[k]}.weight`, weights(i, layer)]),
    ),
  ),
});
const configOf = (name: string, type: string) =>
  JSON.stringify({ architectures: [name], model_type: type, hidden_size: HIDDEN });

const USUAL = ['gate_proj', 'up_proj', 'down_proj'];

describe.each<readonly [string, string, Lies, Order, readonly string[]]>([
  ['Qwen3_5MoeForCausalLM', 'qwen3_5_moe_text', 'out-in', 'halves', USUAL],
  ['Qwen3MoeForCausalLM', 'qwen3_moe', 'out-in', 'halves', USUAL],
  ['MixtralForCausalLM', 'mixtral', 'out-in', 'halves', ['w1', 'w3', 'w2']],
  ['Unknown', 'unknown', 'in-out', 'halves', USUAL],
  ['GptOssForCausalLM', 'gpt_oss', 'in-out', 'interleaved', USUAL],
])('experts of %s', (name, type, lies, order, names) => {
  const config = configOf(name, type);
  const input = () => modelFolder([stacked(lies, order)], { config });

  test('become the layers that they are where each is a tensor', async () => {
    const options = { to: 'compressed-tensors', groupSize: 32 } as const;
    const [one, other] = [freshPath('one'), freshPath('other')];
    const report = await quantizeModel(input(), one, options);
    await quantizeModel(modelFolder([apart(names)], { config }), other, options);
    expect(report.dense).toEqual([]);
    const [got, wanted] = [one, other].map((folder) => readBack(join(folder, 'model.safetensors')));
    expect(new Set(got!.keys())).toEqual(new Set(wanted!.keys()));
    for (const [key, { bytes }] of wanted!) {
      expect(Buffer.from(got!.get(key)!.bytes).equals(Buffer.from(bytes)), key).toBe(true);
    }
    const model = await openModel(one);
    expect(model.tensors).toHaveLength(1 + 3 * EXPERTS);
    await model.close();
  });

  test('are compared with the stacks that they are of', async () => {
    const out = freshPath('out');
    const from = input();
    const report = await quantizeModel(from, out, { to: 'compressed-tensors', groupSize: 32 });
    const compared = await compareModels(from, out);
    expect(compared.tensors).toHaveLength(1 + 3 * EXPERTS);
    expect(compared.dense.different).toEqual([]);
    expect(compared.totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    const back = freshPath('back');
    await dequantizeModel(out, back);
    expect([...readBack(join(back, 'model.safetensors')).keys()].sort()).toEqual(Object.keys(apart(names)).sort());
  });

  test('are written shard by shard, too', async () => {
    const options = { to: 'compressed-tensors', groupSize: 32 } as const;
    const [from, whole, part] = [input(), freshPath('whole'), freshPath('part.safetensors')];
    await quantizeModel(from, whole, options);
    const plan = JSON.parse(JSON.stringify(await planConversion(from, options)));
    await writeShard(plan, 'model.safetensors', from, part);
    expect(readBack(part)).toEqual(readBack(join(whole, 'model.safetensors')));
  });
});

describe('experts of one model', () => {
  const config = configOf('Qwen3MoeForCausalLM', 'qwen3_moe');
  const input = () => modelFolder([apart(USUAL)], { config });
  const to = 'compressed-tensors';
  const groupsOf = (folder: string) =>
    Object.values(
      JSON.parse(fs.readFileSync(join(folder, 'config.json'), 'utf8')).quantization_config.config_groups,
    ) as {
      targets: string[];
      weights: { num_bits: number; group_size: number | null };
    }[];

  test('take one size of groups, which divides all their rows', async () => {
    const out = freshPath('out');
    const { tensors } = await quantizeModel(input(), out, { to });
    const experts = tensors.filter(({ name }) => name.includes('.experts.'));
    expect(new Set(experts.map(({ config: { groupSize } }) => groupSize))).toEqual(new Set([32])); // of 64 and 96
    expect(groupsOf(out)).toMatchObject([
      { targets: ['model.layers.0.self_attn.q_proj'], weights: { group_size: 64 } },
      { targets: ['re:.*[.]experts[.][0-9]+[.].*', 'Linear'], weights: { group_size: 32 } },
    ]);
  });

  test('are named as such where other layers are more', async () => {
    const more = Object.fromEntries(
      Array.from({ length: 12 }, (_, i) => [
        `model.layers.${i}.self_attn.q_proj.weight`,
        randomTensor([64, HIDDEN], i),
      ]),
    );
    const out = freshPath('out');
    await quantizeModel(modelFolder([{ ...apart(USUAL), ...more }], { config }), out, {
      ...{ to, groupSize: 32, overrides: { '*.experts.*': { nbits: 2 } } },
    });
    expect(groupsOf(out)).toMatchObject([
      { targets: ['re:.*[.]experts[.][0-9]+[.].*'], weights: { num_bits: 2 } },
      { targets: ['Linear'], weights: { num_bits: 4 } },
    ]);
  });

  test.each([
    ['other bits', { overrides: { '*.down_proj.weight': { nbits: 8 } } }],
    ['other groups', { groupSize: 32, overrides: { '*.experts.1.*': { groupSize: 16 } } }],
    ['some that stay', { exclude: '*.experts.0.*' }],
  ] as const)('are refused with %s', async (_, options) => {
    const error = await failure(() => quantizeModel(input(), freshPath(), { to, ...options }));
    expect(error).toMatchObject({
      code: 'ERR_CHECKPOINT_CONTENT',
      message: expect.stringMatching(/^Expected all experts of compressed-tensors to have the same bits and groups/),
    });
  });

  test('stay all of them with a note, and not where transformers is to load them', async () => {
    const options = { to, exclude: '*.experts.*' } as const;
    const out = freshPath('out');
    const { notes } = await quantizeModel(input(), out, options);
    expect(notes.join()).toMatch(/Experts stay as they are: transformers 5 does not load them/);
    const model = await openModel(out);
    expect(model.loading().loads).not.toContain('transformers 5');
    expect(model.loading().loads).toContain('vLLM');
    await model.close();
    const error = await failure(() => quantizeModel(input(), freshPath(), { ...options, for: 'transformers' }));
    expect(error.message).toMatch(/transformers 5 loads .* would not load .*experts must all be quantized/);
  });

  test.each(['awq', 'gptq'] as const)(
    'in stacks are refused for %s as others are, unless they are left',
    async (to) => {
      const out = freshPath('out');
      const folder = modelFolder([stacked('out-in', 'halves')], { config });
      const error = await failure(() => quantizeModel(folder, out, { to }));
      expect(error).toMatchObject({
        code: 'ERR_CHECKPOINT_CONTENT',
        message: expect.stringMatching(
          /got "model\.layers\.0\.mlp\.experts\.\w+_proj" and 1 more: transformers fills experts of .* --exclude "\*\.experts\.\*"/,
        ),
      });
      expect(fs.existsSync(out)).toBe(false);
      const { dense, tensors } = await quantizeModel(folder, out, { to, exclude: '*.experts.*' });
      expect(tensors.map(({ name }) => name)).toEqual(['model.layers.0.self_attn.q_proj.weight']);
      expect(dense.map(({ reason }) => reason)).toEqual(['excluded', 'excluded']);
    },
  );

  test('in stacks of another name are left by the patterns that the message gives', async () => {
    const stack = randomTensor([EXPERTS, 64, HIDDEN], 5);
    const at = (layer: number) => `model.layers.${layer}.block_sparse_moe`;
    const names = [0, 1].flatMap((layer) => [`${at(layer)}.input_linear.weight`, `${at(layer)}.output_linear.weight`]);
    const model = { ...ATTENTION, ...Object.fromEntries(names.map((name) => [name, stack])) };
    const folder = modelFolder([model], {
      config: '{"architectures": ["GraniteMoeForCausalLM"], "model_type": "granitemoe"}',
    });
    const { message } = await failure(() => quantizeModel(folder, freshPath('out'), { to: 'awq', dryRun: true }));
    const exclude = [...message.matchAll(/--exclude "([^"]+)"/g)].map(([, glob]) => glob!);
    expect(exclude).toEqual([
      'model.layers.*.block_sparse_moe.input_linear',
      'model.layers.*.block_sparse_moe.output_linear',
    ]);
    const { tensors } = await quantizeModel(folder, freshPath('out'), { to: 'awq', dryRun: true, exclude });
    expect(tensors.map(({ name }) => name)).toEqual(['model.layers.0.self_attn.q_proj.weight']);
  });

  test('of models that transformers holds as stacks alone are refused for it', async () => {
    const folder = () =>
      modelFolder([stacked('in-out', 'interleaved')], { config: configOf('GptOssForCausalLM', 'gpt_oss') });
    const error = await failure(() => quantizeModel(folder(), freshPath(), { for: 'transformers' }));
    expect(error.message).toMatch(/it holds the experts of gpt_oss as one tensor/);
    const out = freshPath('out');
    const plain = await quantizeModel(folder(), freshPath(), { to, dryRun: true });
    expect(plain.notes.join()).toMatch(
      /transformers 5 holds the experts of gpt_oss as one tensor, and would fill them/,
    );
    await quantizeModel(folder(), out, { for: 'transformers', exclude: '*.experts.*' });
    const model = await openModel(out);
    expect(model.loading().loads).toContain('transformers 5');
    await model.close();
  });
});
