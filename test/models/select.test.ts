import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { withMember, withoutMember } from '../../lib/containers/safetensors/config-text.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  encode,
  failure,
  freshPath,
  llama,
  modelFolder,
  randomTensor,
  readBack,
  type Source,
} from '../support/checkpoints.js';

const matrix = (seed = 1) => randomTensor([64, 64], seed);
const modules = (...names: string[]): Source =>
  Object.fromEntries(names.map((name, i) => [`${name}.weight`, matrix(i)]));
const config = (values: object) => JSON.stringify(values, null, 2);

async function plan(source: Source, options: Parameters<typeof quantizeModel>[2] = {}, text?: string) {
  const report = await quantizeModel(modelFolder([source], { config: text }), freshPath(), {
    ...options,
    dryRun: true,
  });
  return {
    quantized: report.tensors.map(({ name }) => name.replace(/\.weight$/, '')),
    dense: Object.fromEntries(report.dense.map(({ name, reason }) => [name, reason])),
    report,
  };
}

async function skipModules(
  source: Source,
  options: Parameters<typeof quantizeModel>[2] = {},
  text?: string,
): Promise<string[]> {
  const out = freshPath();
  await quantizeModel(modelFolder([source], { config: text }), out, options);
  return JSON.parse(fs.readFileSync(join(out, 'config.json'), 'utf8').replace('Infinity', '1')).quantization_config
    .skip_modules;
}

/** What is said of a model whose config.json names no class. */
const UNKNOWN = expect.stringContaining('The architecture is unknown: config.json names none');

describe('what is quantized', () => {
  it('are linear weights; every other tensor has its reason', async () => {
    const { quantized, dense } = await plan({
      ...modules(
        'model.embed_tokens',
        'a.wte',
        'bert.embeddings.word_embeddings',
        'lm_head',
        'x.lm_head',
        'embed_out',
        'shared',
        'l.0.q_proj',
      ),
      ...modules('attn.relative_attention_bias', 'ln_f', 'l.0.layer_norm', 'albert.embedding_hidden_mapping_in'),
      'l.0.conv.weight': randomTensor([4, 4, 4], 1),
      'l.0.experts.gate.weight': randomTensor([2, 8, 8], 1),
      'l.0.norm.weight': randomTensor([8], 1),
      'l.0.matrix': matrix(),
      'i.weight': { dtype: 'I64', shape: [2, 2], bytes: new Uint8Array(32) },
      'empty.weight': { dtype: 'F32', shape: [0, 4], bytes: new Uint8Array(0) },
      ...modules('l.0.gate'),
      'l.0.gate.e_score_correction_bias': randomTensor([64], 1),
      ...modules('odd'),
      'odd.bias': randomTensor([3], 1),
    });
    expect(quantized).toEqual(['l.0.q_proj']);
    expect(dense).toEqual({
      'model.embed_tokens.weight': 'embedding',
      'a.wte.weight': 'embedding',
      'bert.embeddings.word_embeddings.weight': 'embedding',
      'shared.weight': 'embedding',
      'attn.relative_attention_bias.weight': 'embedding',
      'albert.embedding_hidden_mapping_in.weight': 'embedding',
      'lm_head.weight': 'excluded by default: lm_head',
      'x.lm_head.weight': 'excluded by default: lm_head',
      'embed_out.weight': 'excluded by default: embed_out',
      'ln_f.weight': 'norm',
      'l.0.layer_norm.weight': 'norm',
      'l.0.conv.weight': 'not a matrix',
      'l.0.experts.gate.weight': 'experts in one 3-D tensor, of which nothing says which way they lie',
      'l.0.norm.weight': 'not a matrix',
      'l.0.matrix': 'not named <module>.weight',
      'i.weight': 'stored as I64',
      'empty.weight': 'empty',
      'l.0.gate.weight': 'its module has other tensors than weight and bias',
      'l.0.gate.e_score_correction_bias': 'not a matrix',
      'odd.weight': 'its bias is F32 [3]',
      'odd.bias': 'not a matrix',
    });
  });

  it('include, exclude and overrides choose; later overrides win', async () => {
    const source = llama();
    expect((await plan(source, { include: ['lm_head', '*.q_proj.weight'] })).quantized.sort()).toEqual([
      'lm_head',
      'model.layers.0.self_attn.q_proj',
      'model.layers.1.self_attn.q_proj',
    ]);
    expect((await plan(source, { include: '*q_proj', exclude: '*.0.*' })).quantized).toEqual([
      'model.layers.1.self_attn.q_proj',
    ]);
    expect((await plan(source, { exclude: ['*.mlp.{gate,down}_proj', 'lm_head'] })).quantized).toHaveLength(4);
    const { report } = await plan(source, {
      nbits: 3,
      overrides: { '*q_proj': { nbits: 8 }, 'model.layers.1.*': { nbits: 2, groupSize: 16 } },
    });
    const bits = Object.fromEntries(
      report.tensors.map(({ name, config }) => [name.slice(13, -7), [config.nbits, config.groupSize]]),
    );
    expect(bits['0.self_attn.q_proj']).toEqual([8, 64]);
    expect(bits['1.self_attn.q_proj']).toEqual([2, 16]);
    expect(bits['0.mlp.down_proj']).toEqual([3, 64]);
  });

  it.each([
    [{ include: '*q_porj' }, /include \(--include\) "\*q_porj" to match a tensor.*Did you mean "\*q_proj"/],
    [
      { exclude: 'model.layers.0.self_atn.q_proj' },
      /exclude \(--exclude\) .* Did you mean "model.layers.0.self_attn.q_proj"/,
    ],
    [{ overrides: { '*.upp_proj': { nbits: 8 } } }, /overrides \(--override\) "\*\.upp_proj" to match a tensor/],
    [{ overrides: { lm_head: { nbits: 8 } } }, /stays as it is: excluded by default: lm_head\. Include it too\./],
    [{ include: '*embed_tokens' }, /"model.embed_tokens.weight" stays as it is: embedding/],
    [
      { exclude: '*' },
      /Expected exclude \(--exclude\) to leave something .* matches all 9 weights of \S+ that would be quantized\. Narrow its patterns/,
    ],
  ] as const)('refuses %j', async (options, message) => {
    const error = await failure(() => plan(llama(), options as QuantConfig));
    expect(error.message).toMatch(message);
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
  });

  it.each([
    [{ nbit: 4 }, /Unknown option "nbit"\. Did you mean "nbits"/],
    [{ incldue: 'x' }, /Did you mean "include"/],
    [{ include: [3] }, /Expected include to be a glob or an array of globs, got \[3\]/],
    [{ metaDtype: 'bfloat16' }, /Expected metaDtype to be one of auto, float16, float32, got "bfloat16"/],
    [{ overrides: { x: { nbits: 7 } } }, /overrides\["x"\]: Expected nbits to be one of/],
    [{ overrides: { x: { nbit: 7 } } }, /overrides\["x"\]: Unknown option "nbit"/],
    [{ threads: 0 }, /Expected threads to be an integer in \[1, 256\], got 0/],
    [{ onProgress: 1 }, /Expected onProgress to be a function/],
    [{ signal: 1 }, /Expected signal to be an AbortSignal/],
  ])('refuses the option %j before anything is read', async (options, message) => {
    const error = await failure(() => quantizeModel('/does/not/exist', '/nor/this', options as object));
    expect(error.message).toMatch(message);
    expect(error.code).toBe('ERR_INVALID_OPTION');
  });

  it('never takes a tied head', async () => {
    const text = config({ model_type: 'llama', tie_word_embeddings: true });
    expect((await plan(llama(), {}, text)).dense['lm_head.weight']).toBe('tied to the embedding');
    const { report, quantized } = await plan(llama(), { include: ['lm_head', '*q_proj'] }, text);
    expect(quantized).toHaveLength(2);
    expect(report.notes.join()).toContain('lm_head.weight is tied to the embedding');
    const nested = config({ text_config: { tie_word_embeddings: true } });
    expect((await plan(llama(), {}, nested)).dense['lm_head.weight']).toBe('tied to the embedding');
  });

  it('is nothing in a GPT-2, and says why', async () => {
    const gpt2 = await plan(modules('h.0.attn.c_attn', 'wte', 'score'), {}, config({ model_type: 'gpt2' }));
    expect(gpt2.quantized).toEqual(['h.0.attn.c_attn']);
    expect(gpt2.dense).toMatchObject({ 'score.weight': 'may be a Conv1D of gpt2' });
    expect(gpt2.report.notes.join()).toContain('1 weight stored [in, out]');
  });

  it('knows the Conv1D layers of a part from the linear layers of the others', async () => {
    const source = modules(
      'encoder.l.0.query',
      'decoder.h.0.attn.c_attn',
      'decoder.h.0.crossattention.q_attn',
      'decoder.h.0.mlp.c_fc',
    );
    for (const part of ['decoder', 'text_config']) {
      const { quantized, report } = await plan(
        source,
        {},
        config({ model_type: 'vision-x', [part]: { model_type: 'gpt2' } }),
      );
      expect(quantized).toHaveLength(4);
      expect(report.notes.join()).toContain('3 weights stored [in, out] ("decoder.h.0.attn.c_attn.weight" and 2 more)');
    }
    // Models of other types have linear layers of these names.
    const { quantized, report } = await plan(source, {}, config({ model_type: 'gpt_bigcode' }));
    expect(quantized).toHaveLength(4);
    expect(report.notes.join()).not.toContain('[in, out]');
    const convbert = await failure(() => plan(modules('l.0.query'), {}, config({ model_type: 'convbert' })));
    expect(convbert.message).toContain('Conv1D of convbert');
  });

  it('knows layers whose bias shows that they are stored [in, out], and those called alike', async () => {
    const wide = {
      'h.0.attn.c_attn.weight': randomTensor([64, 192], 1),
      'h.0.attn.c_attn.bias': randomTensor([192], 2),
    };
    const gpt2 = { ...wide, ...modules('h.0.attn.c_proj', 'h.0.mlp.c_fc', 'h.0.other') };
    const { quantized, report } = await plan(gpt2, {}, '');
    expect(quantized).toHaveLength(4);
    expect(report.tensors[0]!.shape).toEqual([192, 64]);
    expect(report.notes.join()).toContain('3 weights stored [in, out]');
    const family = {
      'a.mix.weight': randomTensor([64, 192], 1),
      'a.mix.bias': randomTensor([192], 2),
      ...modules('b.mix', 'b.c_fc'),
    };
    const alike = await plan(family);
    expect(alike.quantized).toHaveLength(3);
    expect(alike.report.notes.join()).toContain('2 weights stored [in, out]');
  });

  it('takes a head only where it is known not to be tied', async () => {
    const options = { include: ['lm_head', '*q_proj'] };
    for (const type of ['gemma2', 'gpt_j_like', undefined]) {
      const { dense, quantized, report } = await plan(llama(), options, config({ model_type: type }));
      expect(dense['lm_head.weight']).toBe('may be tied to the embedding');
      expect(report.notes.join()).toMatch(/lm_head\.weight was left as it is.*"tie_word_embeddings": false/);
      expect(quantized).toHaveLength(2);
      expect(
        (await plan(llama(), { include: 'lm_head' }, config({ model_type: type, tie_word_embeddings: false })))
          .quantized,
      ).toEqual(['lm_head']);
      expect((await plan(llama(), {}, config({ model_type: type }))).report.notes).toEqual([UNKNOWN]);
    }
    for (const text of [config({ model_type: 'qwen3' }), config({ text_config: { model_type: 'llama' } }), '']) {
      expect((await plan(llama(), options, text)).quantized).toContain('lm_head');
    }
  });

  it('leaves routers that are no layers', async () => {
    const source = modules('model.layers.3.mlp.gate', 'model.layers.3.mlp.experts.0.gate_proj');
    expect((await plan(source, {}, config({ model_type: 'deepseek_v2' }))).dense).toEqual({
      'model.layers.3.mlp.gate.weight': 'router that is not an nn.Linear',
    });
    expect((await plan(source, {}, config({ model_type: 'qwen2_moe' }))).quantized).toHaveLength(2);
    const nested = config({ model_type: 'glm_x', text_config: { model_type: 'glm4v_moe_text' } });
    expect((await plan(source, {}, nested)).quantized).toEqual(['model.layers.3.mlp.experts.0.gate_proj']);
  });

  it('is refused where it was quantized before', async () => {
    const out = freshPath();
    await quantizeModel(modelFolder([llama()]), out);
    const again = await failure(() => quantizeModel(out, freshPath()));
    expect(again).toMatchObject({
      code: 'ERR_CHECKPOINT_CONTENT',
      message: expect.stringMatching(/quantized already: 8 layers hold HQQ codes/),
    });
    const gptq = await failure(() => plan(llama(), {}, config({ quantization_config: { quant_method: 'gptq' } })));
    expect(gptq).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringContaining('method "gptq"') });
    // Of floats alone the entry may be what is left of a quantization that was undone.
    const rest =
      /All its tensors are floats\. If they are the weights themselves.* remove quantization_config from config/;
    expect(gptq.message).toMatch(rest);
    const eight = { ...llama(), 'x.codes': { dtype: 'F8_E4M3', shape: [64, 64], bytes: new Uint8Array(4096) } };
    const fp8 = await failure(() => plan(eight, {}, config({ quantization_config: { quant_method: 'fp8' } })));
    expect(fp8.message).toMatch(/already: .*method "fp8"\. Quantize the float original instead/);
  });
});

describe('skip_modules', () => {
  it('names the head unless it is quantized, and every dense linear layer in full', async () => {
    expect(await skipModules(llama())).toEqual(['lm_head']);
    expect(await skipModules(llama(), { include: ['*proj', 'lm_head'] })).toEqual([]);
    expect(await skipModules(llama(), { exclude: '*.0.mlp.*' })).toEqual([
      'lm_head',
      'model.layers.0.mlp.gate_proj',
      'model.layers.0.mlp.down_proj',
    ]);
    expect(await skipModules(modules('a.q', 'v.lm_head', 'x.embedding_in_map', 'norm', 'wte'))).toEqual([
      'lm_head',
      'v.lm_head',
      'x.embedding_in_map',
      'norm',
    ]);
    const crowded = { ...modules('a.q', 'x.norm_proj', 'x.gated'), 'x.gated.scales': randomTensor([4], 1) };
    expect(await skipModules(crowded)).toEqual(['lm_head', 'x.norm_proj', 'x.gated']);
    expect(await skipModules(modules('lm_head.dense', 'lm_head.decoder'), { include: 'lm_head.*' })).toEqual([]);
  });

  it('may not name a part of what is quantized', async () => {
    const source = modules('m.mlp.gate', 'm.mlp.gate_proj');
    const out = freshPath();
    const error = await failure(() => quantizeModel(modelFolder([source]), out, { exclude: 'm.mlp.gate' }));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(/"m.mlp.gate" .* "m.mlp.gate_proj" .*Exclude both or quantize both/);
    expect(fs.existsSync(out)).toBe(false);
    const both = await failure(() => skipModules(source, { exclude: 'm.mlp.gate*', include: 'm.*' }));
    expect(both.code).toBe('ERR_CHECKPOINT_CONTENT');
  });

  it('may where there is no config.json for transformers to read', async () => {
    const source = modules('m.mlp.gate', 'm.mlp.gate_proj');
    const file = freshPath('one.safetensors');
    fs.writeFileSync(file, encode(source));
    for (const input of [file, modelFolder([source], { config: '' })]) {
      const { tensors } = await quantizeModel(input, freshPath(), { exclude: 'm.mlp.gate' });
      expect(tensors.map(({ name }) => name)).toEqual(['m.mlp.gate_proj.weight']);
    }
  });
});

describe('config.json', () => {
  const value = { a: { b: [1, 'x'] }, c: null };
  it.each([
    '{\n  "x": 1e-05,\n  "y": Infinity\n}\n',
    '{\n "x": 1\n}',
    '{"x": 1, "y": "}{\\"["}',
    '{}',
    '{\n\t"x": [\n\t\t{}\n\t]\n}\n\n',
    '{"é": "😀"}',
  ])('%j gets a member and loses it again, the rest byte for byte', (text) => {
    const edited = withMember(text, 'q', value);
    expect(JSON.parse(edited.replace('Infinity', '1')).q).toEqual(value);
    expect(edited.startsWith(text.slice(0, text.lastIndexOf('}')).trimEnd())).toBe(true);
    expect(withoutMember(withMember(withMember(text, 'q', 1), 'q', value), 'q')).toBe(withoutMember(edited, 'q'));
    if (text !== '{}') expect(withoutMember(edited, 'q')).toBe(text);
    expect(JSON.parse(withoutMember(edited, 'q').replace('Infinity', '1'))).toEqual(
      JSON.parse(text.replace('Infinity', '1')),
    );
  });
  it('loses a member wherever it stands, and only at the top', () => {
    expect(withoutMember('{"q": {"q": 1}, "x": {"q": 2}}', 'q')).toBe('{"x": {"q": 2}}');
    expect(withoutMember('{"a": 1, "q": [1, 2], "x": 2}', 'q')).toBe('{"a": 1, "x": 2}');
    expect(withoutMember('{"q": 1}', 'q')).toBe('{}');
    expect(withoutMember('{"a": "q"}', 'q')).toBe('{"a": "q"}');
    expect(withoutMember('{"a": 1, "\\u0071": 2}', 'q')).toBe('{"a": 1}');
  });
});

it('keeps tensors whose names look like those of a layer apart', async () => {
  const source = { ...modules('a'), 'a_q.scale': randomTensor([4], 1), 'b.zero': randomTensor([4], 2) };
  const out = freshPath();
  await quantizeModel(modelFolder([source], { config: '' }), out); // transformers would lose one of them
  expect([...readBack(out).keys()]).toEqual(expect.arrayContaining(['a.W_q', 'a.scale', 'a_q.scale', 'b.zero']));
});
