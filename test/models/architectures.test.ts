import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { CLASSES, NODES, TYPES } from '../../lib/models/select/architecture-data.js';
import { describeArchitecture } from '../../lib/models/select/describe.js';
import { confusedLayers } from '../../lib/schemes/hqq/confusion.js';
import { freshPath, modelFolder, randomTensor, type Source } from '../support/checkpoints.js';

// What is quantized of models whose class transformers knows, and what is said of the others.

const matrix = (seed: number) => randomTensor([64, 64], seed);
const modules = (...names: string[]): Source =>
  Object.fromEntries(names.map((name, i) => [`${name}.weight`, matrix(i + 1)]));

interface Outcome {
  readonly quantized: readonly string[];
  readonly dense: Readonly<Record<string, string>>;
  readonly notes: readonly string[];
  readonly skip: readonly string[];
}

async function quantized(
  source: Source,
  config: object,
  options: Parameters<typeof quantizeModel>[2] = {},
): Promise<Outcome> {
  const out = freshPath();
  const report = await quantizeModel(modelFolder([source], { config: JSON.stringify(config, null, 2) }), out, options);
  const written = JSON.parse(fs.readFileSync(join(out, 'config.json'), 'utf8'));
  return {
    quantized: report.tensors.map(({ name }) => name.replace(/\.weight$/, '')).sort(),
    dense: Object.fromEntries(report.dense.map(({ name, reason }) => [name.replace(/\.weight$/, ''), reason])),
    notes: report.notes,
    skip: written.quantization_config.skip_modules,
  };
}

const of = (name: string, more: object = {}) => ({ architectures: [name], ...more });

describe('a model whose class is known', () => {
  it('has no embeddings, learned tokens or queries quantized that are called as layers are', async () => {
    const sam = await quantized(
      modules(
        'mask_decoder.iou_token',
        'mask_decoder.mask_tokens',
        'vision_encoder.layers.0.attn.qkv',
        'mask_decoder.transformer.layers.0.self_attn.q_proj',
        'prompt_encoder.no_mask_embed',
      ),
      of('SamModel', { model_type: 'sam' }),
    );
    expect(sam.quantized).toEqual([
      'mask_decoder.transformer.layers.0.self_attn.q_proj',
      'vision_encoder.layers.0.attn.qkv',
    ]);
    expect(sam.dense).toMatchObject({ 'mask_decoder.iou_token': 'embedding', 'mask_decoder.mask_tokens': 'embedding' });
    const ctrl = modules('transformer.w', 'transformer.h.0.multi_head_attention.Wq', 'transformer.h.0.ffn.0');
    const { quantized: layers, notes } = await quantized(ctrl, of('CTRLLMHeadModel', { model_type: 'ctrl' }));
    expect(layers).toEqual(['transformer.h.0.ffn.0', 'transformer.h.0.multi_head_attention.Wq']);
    expect(notes).toEqual([]);
  });

  it('keeps layers whose weight is read past them', async () => {
    const { quantized: layers, skip } = await quantized(
      modules(
        'vision_model.head.attention.out_proj',
        'vision_model.head.mlp.fc1',
        'vision_model.encoder.layers.0.self_attn.out_proj',
      ),
      of('SiglipModel', { model_type: 'siglip' }),
    );
    expect(layers).toEqual(['vision_model.encoder.layers.0.self_attn.out_proj', 'vision_model.head.mlp.fc1']);
    expect(skip).toContain('vision_model.head.attention.out_proj');
    const llama4 = await quantized(
      modules('model.layers.0.feed_forward.router', 'model.layers.0.self_attn.q_proj'),
      of('Llama4ForCausalLM', { model_type: 'llama4_text' }),
    );
    expect(llama4.quantized).toEqual(['model.layers.0.self_attn.q_proj']);
    expect(llama4.skip).toContain('model.layers.0.feed_forward.router');
  });

  it('keeps routers that one version of transformers has as a layer, and the next as a parameter', async () => {
    const { quantized: layers, skip } = await quantized(
      modules('model.layers.0.mlp.gate', 'model.layers.0.mlp.experts.0.up_proj', 'model.layers.0.self_attn.q_proj'),
      of('Qwen3MoeForCausalLM', { model_type: 'qwen3_moe' }),
    );
    expect(layers).toEqual(['model.layers.0.mlp.experts.0.up_proj', 'model.layers.0.self_attn.q_proj']);
    expect(skip).toContain('model.layers.0.mlp.gate');
  });

  it('keeps layers that a list holds beside the modules', async () => {
    const { quantized: layers, skip } = await quantized(
      modules('mask_embedder.0.0', 'model.transformer_module.decoder.layers.0.fc1'),
      of('MaskFormerForInstanceSegmentation', { model_type: 'maskformer' }),
    );
    expect(layers).toEqual(['model.transformer_module.decoder.layers.0.fc1']);
    expect(skip).toContain('mask_embedder.0.0');
  });

  it('finds modules whose names transformers rewrites at two places', async () => {
    // As Gemma3nForCausalLM saves model.per_layer_model_projection.
    const { quantized: layers } = await quantized(
      modules(
        'model.language_model.per_layer_model.language_model_projection',
        'model.language_model.layers.0.self_attn.q_proj',
      ),
      of('Gemma3nForCausalLM', { model_type: 'gemma3n_text' }),
    );
    expect(layers).toContain('model.language_model.per_layer_model.language_model_projection');
  });

  it('has a tied head that stands in no file skipped by its own name', async () => {
    const bert = modules('bert.embeddings.word_embeddings', 'bert.encoder.layer.0.output.dense');
    expect((await quantized(bert, of('BertForMaskedLM', { model_type: 'bert' }))).skip).toContain(
      'cls.predictions.decoder',
    );
    const untied = of('BertForMaskedLM', { model_type: 'bert', tie_word_embeddings: false });
    expect((await quantized(bert, untied)).skip).not.toContain('cls.predictions.decoder');
    const xlnet = modules('transformer.word_embedding', 'transformer.layer.0.ff.layer_1');
    expect((await quantized(xlnet, of('XLNetLMHeadModel', { model_type: 'xlnet' }))).skip).toContain('lm_loss');
  });

  it('is tied as the part of config.json says that is the language model, and by default as that is', async () => {
    const config = of('BridgeTowerForMaskedLM', {
      ...{ model_type: 'bridgetower', tie_word_embeddings: false },
      text_config: { model_type: 'bridgetower_text_model' },
    });
    const source = modules('bridgetower.text_model.embeddings.word_embeddings', 'mlm_score.transform.dense');
    expect((await quantized(source, config)).skip).toContain('mlm_score.decoder');
  });

  it('has a layer left whose bias goes by the name of the module around it', async () => {
    const source = {
      ...modules('mim_head.decoder', 'mim_head.transform.dense'),
      'mim_head.bias': randomTensor([64], 9),
    };
    const {
      quantized: layers,
      dense,
      skip,
    } = await quantized(source, of('FlavaForPreTraining', { model_type: 'flava' }));
    expect(layers).toEqual(['mim_head.transform.dense']);
    expect(dense['mim_head.decoder']).toBe('its bias goes by another name');
    expect(skip).toContain('mim_head.decoder');
  });

  it('is told of a tied pair that stands twice and differs', async () => {
    const names = ['model.embed_tokens', 'model.layers.0.self_attn.q_proj', 'lm_head'] as const;
    const llama = of('LlamaForCausalLM', { model_type: 'llama', tie_word_embeddings: true });
    const differing = await quantized(modules(...names), llama);
    expect(differing.dense.lm_head).toBe('tied to the embedding');
    expect(differing.notes).toEqual([
      expect.stringMatching(/^lm_head\.weight and model\.embed_tokens\.weight differ.*"tie_word_embeddings": false/),
    ]);
    const equal = { ...modules(...names), 'lm_head.weight': matrix(1) };
    expect((await quantized(equal, llama)).notes).toEqual([]);
  });

  it('is known without the name of the bare model before its modules, and under older names of them', async () => {
    const bare = await quantized(
      modules('encoder.layer.0.output.dense', 'embeddings.word_embeddings'),
      of('BertForMaskedLM', { model_type: 'bert' }),
    );
    expect(bare.quantized).toEqual(['encoder.layer.0.output.dense']);
    const llava = await quantized(
      modules('language_model.model.layers.0.mlp.up_proj', 'language_model.lm_head', 'multi_modal_projector.linear_1'),
      of('LlavaForConditionalGeneration', { model_type: 'llava', text_config: { model_type: 'llama' } }),
      { exclude: 'multi_modal_projector.linear_1' },
    );
    expect(llava.quantized).toEqual(['language_model.model.layers.0.mlp.up_proj']);
    expect(llava.skip).toContain('model.multi_modal_projector.linear_1');
  });

  it('takes the parts that config.json says', async () => {
    const config = (type: string) =>
      of('LlavaForConditionalGeneration', { model_type: 'llava', text_config: { model_type: type } });
    const source = modules(
      'model.language_model.layers.0.block_sparse_moe.experts.3.w1',
      'model.language_model.layers.0.self_attn.q_proj',
      'model.multi_modal_projector.linear_1',
    );
    expect((await quantized(source, config('mixtral'))).quantized).toHaveLength(3);
    const llama = await quantized(source, config('llama'));
    expect(llama.quantized).toHaveLength(2);
    expect(llama.notes.join()).toContain('1 weight that LlavaForConditionalGeneration is not known to have');
  });

  it('has a layer left whose name transformers would find in another', async () => {
    const { quantized: layers, dense } = await quantized(
      {
        ...modules('encoder.layer.0.attention.self.key', 'encoder.layer.0.attention.self.query'),
        'encoder.layer.0.attention.self.key_conv_attn_layer.depthwise.weight': randomTensor([64, 1, 9], 3),
      },
      of('ConvBertModel', { model_type: 'convbert' }),
    );
    expect(layers).toEqual(['encoder.layer.0.attention.self.query']);
    expect(dense['encoder.layer.0.attention.self.key']).toContain('transformers would lose');
  });

  it('is another where its matrices are called otherwise', async () => {
    const { quantized: layers, notes } = await quantized(
      modules('trunk.0.wide', 'trunk.1.wide'),
      of('LlamaForCausalLM', { model_type: 'llama' }),
    );
    expect(layers).toHaveLength(2);
    expect(notes.join()).toContain('The architecture is unknown: config.json says "LlamaForCausalLM"');
  });
});

describe('a model whose class is not known', () => {
  it('has matrices left that nothing marks as layers, or that are called as tables, tokens, queries or positions', async () => {
    const {
      quantized: layers,
      dense,
      notes,
    } = await quantized(
      {
        ...modules('blocks.0.attn.query', 'blocks.0.attn.key', 'blocks.0.mask_token', 'rel_position_table'),
        ...modules('decoder.queries', 'lone.thing', 'blocks.0.query_key_value', 'token_proj'),
        'token_proj.bias': randomTensor([64], 1),
      },
      of('OwnModel', { model_type: 'own' }),
    );
    expect(layers).toEqual(['blocks.0.attn.key', 'blocks.0.attn.query', 'blocks.0.query_key_value', 'token_proj']);
    const called = 'called as what is looked up or learned, not as a layer';
    expect(dense).toMatchObject({
      'blocks.0.mask_token': called,
      rel_position_table: called,
      'decoder.queries': called,
      'lone.thing': 'nothing beside it says that it is a layer',
    });
    expect(notes.join()).toMatch(/architecture is unknown: config\.json says "OwnModel"\. .* 4 weights .* were taken/);
  });

  it('keeps layers that transformers would take for others by their names', async () => {
    const source = {
      ...modules('blocks.0.key', 'blocks.0.value'),
      'blocks.0.key_conv.weight': randomTensor([64, 1, 9], 3),
    };
    const { quantized: layers, dense } = await quantized(source, of('OwnModel', { model_type: 'own' }));
    expect(layers).toEqual(['blocks.0.value']);
    expect(dense['blocks.0.key']).toContain('transformers would lose "blocks.0.key_conv.weight"');
  });

  it('has them quantized where they are included by name', async () => {
    const source = modules('decoder.queries', 'blocks.0.up');
    const { quantized: layers } = await quantized(source, of('OwnModel'), { include: ['decoder.queries', '*.up'] });
    expect(layers).toEqual(['blocks.0.up', 'decoder.queries']);
  });
});

describe('what is told of an architecture', () => {
  it('is its class, modules by kind, and which are tied', async () => {
    const tensors = [
      'bert.embeddings.word_embeddings.weight',
      'bert.encoder.layer.0.output.dense.weight',
      'bert.strange.weight',
    ].map((name) => ({ name, shape: [64, 64] }));
    expect(await describeArchitecture(of('BertForMaskedLM', { model_type: 'bert' }), tensors)).toEqual({
      name: 'BertForMaskedLM',
      known: true,
      modules: {
        embedding: ['bert.embeddings.word_embeddings.weight'],
        linear: ['bert.encoder.layer.0.output.dense.weight'],
        unknown: ['bert.strange.weight'],
      },
      tied: [{ module: 'cls.predictions.decoder', source: 'bert.embeddings.word_embeddings', held: 'source' }],
    });
    expect(await describeArchitecture(of('OwnModel'), tensors)).toEqual({ name: 'OwnModel', known: false });
  });
});

describe('the table', () => {
  it('is at most 60 kB', () => {
    const parts = [...NODES, ...CLASSES.map(([, packed]) => packed), TYPES];
    const sizes = parts.map((packed) => Buffer.from(packed, 'base64').length);
    expect(sizes.reduce((a, b) => a + b)).toBeLessThanOrEqual(60_000);
  });
});

describe('names that transformers confuses', () => {
  it.each([
    [['a.key'], [], ['a.key_conv.weight'], ['a.key']],
    [['a.key'], [], ['a.keys.weight', 'a.key.weight'], ['a.key']],
    [['classifier'], [], ['pre_classifier.weight'], ['classifier']],
    [['m.gate_proj', 'm.gate_proj2'], ['m.gate'], [], ['m.gate_proj', 'm.gate_proj2']],
    [['m.gate_proj', 'm.up'], [], ['m.norm.weight', 'm.gate_proj.extra'], []],
  ])('of %j, where %j and %j stay', (layers, stays, tensors, expected) => {
    expect([...confusedLayers(layers, stays, tensors).keys()].sort()).toEqual(expected);
  });
});
