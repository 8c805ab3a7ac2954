import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FAMILIES, writeFamily } from '../../interop/llama.cpp/families.mjs';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { openTokenizer } from '../../lib/runtime/text/tokenizer.js';
import { failure, freshPath } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

const TEXT =
  'Alice was beginning to get very tired of 1234 things, café \u00e9\n\n  and so on. "Yes," <|endoftext|> said she.';
const IDS = Array.from({ length: 40 }, (_, i) => (i * 37) % 256);

/** Logits after every id. */
async function logitsOf(path: string, ids: readonly number[]): Promise<Float32Array> {
  const model = await loadLanguageModel(path, { head: 'float32' });
  const logits = await model.forward(ids, model.createCache(), { logits: 'all' });
  await model.close();
  return logits;
}

const farthest = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

/** A family's folder with changes. */
function changed(name: string, change: object, files: Readonly<Record<string, string>> = {}): string {
  const folder = writeFamily(freshPath(), name);
  const config = { ...FAMILIES[name], ...change };
  fs.writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  for (const [file, text] of Object.entries(files)) fs.writeFileSync(join(folder, file), text);
  return folder;
}

describe('a language model of a folder', () => {
  it.each(Object.keys(FAMILIES))('becomes a GGUF file, and comes back the same: %s', async (name) => {
    const folder = writeFamily(freshPath(), name);
    const [file, back] = [freshPath('x.gguf'), freshPath('back')];
    await dequantizeModel(folder, file);
    const { bytesBefore } = await dequantizeModel(file, back);
    expect(bytesBefore).toBe(fs.statSync(file).size); // with its pairs
    const [original, there, again] = await Promise.all([folder, file, back].map(openModel));
    const norm = there!.names.filter((tensor) => tensor.endsWith('norm.weight'));
    expect(norm.length).toBeGreaterThan(2);
    expect([...again!.names].sort()).toEqual([...original!.names].sort());
    for (const tensor of original!.names) expect(again!.tensor(tensor)).toEqual(original!.tensor(tensor));
    await Promise.all([original, there, again].map((model) => model!.close()));
    const logits = await logitsOf(folder, IDS);
    expect(farthest(await logitsOf(file, IDS), logits)).toBeLessThan(1e-4);
    expect(farthest(await logitsOf(back, IDS), logits)).toBeLessThan(1e-4);
  });

  it('of Qwen3 has heads of 128 numbers where its config.json says nothing of them', async () => {
    const folder = writeFamily(freshPath(), 'qwen3', { own: { head_dim: 128 } });
    const { head_dim: _, ...silent } = { ...FAMILIES.qwen3 } as Record<string, unknown>;
    fs.writeFileSync(join(folder, 'config.json'), JSON.stringify(silent));
    const file = freshPath('x.gguf');
    await dequantizeModel(folder, file);
    const model = await openModel(file);
    expect(model.config!['qwen3.attention.key_length']).toBe(128);
    await model.close();
    expect(farthest(await logitsOf(file, IDS), await logitsOf(folder, IDS))).toBeLessThan(1e-4);
  });

  it('has rows of q and k in the order of llama.cpp, where that family wants it', async () => {
    const folder = writeFamily(freshPath(), 'llama');
    const file = freshPath('x.gguf');
    await dequantizeModel(folder, file);
    const [from, to] = [await openModel(folder), await openModel(file)];
    const [q, turned] = [from.tensor('model.layers.1.self_attn.k_proj'), to.tensor('blk.1.attn_k')];
    for (const [row, origin] of [
      [0, 0],
      [1, 8],
      [2, 1],
      [15, 15],
      [17, 24],
    ] as const)
      expect(turned.subarray(row * 64, row * 64 + 64)).toEqual(q.subarray(origin * 64, origin * 64 + 64));
    await Promise.all([from.close(), to.close()]);
  });

  it.each(['q4_0', 'q4_1', 'q5_0', 'q5_1', 'q8_0', 'q2_k', 'q3_k', 'q4_k', 'q5_k', 'q6_k', 'Q4_K_M'])(
    'computes from %s blocks what their numbers give',
    async (type) => {
      const [file, floats] = [freshPath('x.gguf'), freshPath('floats')];
      await quantizeModel(SHIPPED, file, { type, importance: 'none' });
      await dequantizeModel(file, floats);
      const [coded, dense] = [await logitsOf(file, IDS), await logitsOf(floats, IDS)];
      expect(farthest(coded, dense)).toBeLessThan(2e-4);
      expect(farthest(coded, await logitsOf(SHIPPED, IDS))).toBeGreaterThan(1e-3);
    },
  );

  it('is compared with what was made of it', async () => {
    const file = freshPath('x.gguf');
    const { totals } = await quantizeModel(SHIPPED, file, { type: 'q4_k', importance: 'none' });
    const { totals: found, tensors } = await compareModels(SHIPPED, file);
    expect(found.relativeError).toBeCloseTo(totals.relativeError, 6);
    expect(tensors.length).toBe(22);
  });

  it('says of which type its floats are', async () => {
    const [same, half] = [freshPath('x.gguf'), freshPath('y.gguf')];
    await dequantizeModel(SHIPPED, same);
    await dequantizeModel(SHIPPED, half, { dtype: 'float16' });
    for (const [file, id, dtype] of [
      [same, 32, 'BF16'],
      [half, 1, 'F16'],
    ] as const) {
      const model = await openModel(file);
      const typeOf = (name: string) => model.tensors.find((tensor) => tensor.name === name)!.dtype;
      expect(model.config!['general.file_type']).toBe(id);
      expect([typeOf('token_embd.weight'), typeOf('output_norm.weight')]).toEqual([dtype, 'F32']);
      await model.close();
    }
  });

  it('keeps its tokenizer', async () => {
    const file = freshPath('x.gguf');
    await quantizeModel(SHIPPED, file, { type: 'q8_0', importance: 'none' });
    const [own, made] = [await openTokenizer(SHIPPED), await openTokenizer(file)];
    const ids = await own.encode(TEXT);
    expect(await made.encode(TEXT)).toEqual(ids);
    expect(await made.decode(ids)).toBe(await own.decode(ids));
    await Promise.all([own.close(), made.close()]);
  });

  it('is weighed by what its layers read, from a folder and from a file', async () => {
    const [file, floats, again] = [freshPath('x.gguf'), freshPath('f.gguf'), freshPath('y.gguf')];
    const weighed = await quantizeModel(SHIPPED, file, { type: 'q2_k', importance: 'random', tokens: 256 });
    expect(weighed.importance).toBe('random');
    expect(weighed.notes.join()).not.toContain('no statistics');
    await dequantizeModel(SHIPPED, floats);
    const other = await quantizeModel(floats, again, { type: 'q2_k', importance: 'random', tokens: 256 });
    expect(other.importance).toBe('random');
    const [a, b] = [file, again].map((path) => fs.statSync(path).size);
    expect(a).toBe(b);
  });

  const refused: readonly (readonly [string, () => string, RegExp])[] = [
    ...['Phi3', 'SmolLM3', 'Granite', 'Olmo2', 'Gemma2', 'Gemma3', 'Mixtral', 'Qwen3Moe'].map(
      (name) =>
        [
          `the architecture of ${name}`,
          () => changed('llama', { architectures: [`${name}ForCausalLM`] }),
          new RegExp(`architectures LlamaForCausalLM, .* got "${name}ForCausalLM"`),
        ] as const,
    ),
    [
      'a rope scaling',
      () => changed('llama', { rope_scaling: { rope_type: 'yarn', factor: 2 } }),
      /rope_type .*"yarn"/,
    ],
    ['a shape', () => changed('llama', { intermediate_size: 128 }), /gate_proj\.weight" to be 128 x 64 .* 96 x 64/],
    [
      'a tensor too many',
      () => changed('llama-biases', { mlp_bias: false }),
      /tensor "model\.layers\.0\.mlp\.\w+\.bias"/,
    ],
    [
      'a tensor too few',
      () => changed('llama', { mlp_bias: true }),
      /no tensor "model\.layers\.0\.mlp\.gate_proj\.bias"/,
    ],
    [
      'layers without end',
      () => changed('llama', { num_hidden_layers: 2 ** 27 }),
      /no tensor "model\.layers\.\d+\.input/,
    ],
    ['a window', () => changed('qwen2', { use_sliding_window: true }), /use_sliding_window/],
    ['an activation', () => changed('llama', { hidden_act: 'gelu' }), /hidden_act to be silu, got "gelu"/],
    [
      'what is quantized',
      () => changed('llama', { quantization_config: { quant_method: 'hqq' } }),
      /quantized already/,
    ],
    [
      'a pre-tokenizer',
      () => {
        const folder = writeFamily(freshPath(), 'llama');
        const path = join(folder, 'tokenizer.json');
        const json = JSON.parse(fs.readFileSync(path, 'utf8')) as object;
        fs.writeFileSync(path, JSON.stringify({ ...json, pre_tokenizer: { type: 'Whitespace' } }));
        return folder;
      },
      /pre_tokenizer to be that of one of gpt-2, smollm, llama-bpe, qwen2, got \{"type":"Whitespace"\}/,
    ],
    [
      'no tokenizer',
      () => {
        const folder = writeFamily(freshPath(), 'llama');
        fs.rmSync(join(folder, 'tokenizer.json'));
        return folder;
      },
      /has no tokenizer\.json/,
    ],
  ];

  it.each(refused)('that is not known is refused by name: %s', async (_, make, message) => {
    const out = freshPath('x.gguf');
    const error = await failure(() => quantizeModel(make(), out, { type: 'q8_0' }));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(message) });
    expect(fs.existsSync(out)).toBe(false);
  });

  it('has what texts begin with, a chat template and special tokens', async () => {
    const folder = changed(
      'llama',
      {},
      {
        'tokenizer_config.json': JSON.stringify({
          bos_token: '<s>',
          eos_token: { content: '</s>' },
          chat_template: '{{ x }}',
        }),
      },
    );
    const file = freshPath('x.gguf');
    await dequantizeModel(folder, file);
    const model = await openModel(file);
    expect(model.config).toMatchObject({
      ...{ 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'gpt-2', 'tokenizer.chat_template': '{{ x }}' },
      ...{
        'tokenizer.ggml.bos_token_id': 256,
        'tokenizer.ggml.eos_token_id': 257,
        'tokenizer.ggml.add_bos_token': false,
      },
      ...{ 'llama.attention.head_count_kv': 2, 'llama.context_length': 256, 'general.name': expect.any(String) },
    });
    await model.close();
  });
});
