import { describe, expect, test } from 'vitest';
import { readModelConfig } from '../../../lib/runtime/config/model-config.js';

const LLAMA = {
  architectures: ['LlamaForCausalLM'],
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  vocab_size: 100,
  max_position_embeddings: 512,
};

describe('config.json', () => {
  test('refuses more layers than a model can have, before it makes lists of that length', () => {
    expect(() => readModelConfig({ ...LLAMA, num_hidden_layers: 2 ** 24 })).toThrow(
      'Expected num_hidden_layers to be an integer in [1, 4096], got 16777216.',
    );
  });

  test('has the defaults of transformers', () => {
    expect(readModelConfig(LLAMA)).toMatchObject({
      kvHeads: 8,
      headDim: 8,
      normEpsilon: 1e-6,
      ropes: [{ turned: 8, theta: 10000, scaling: { type: 'default' } }],
      windows: [0, 0, 0, 0],
      qkvBias: false,
      tied: false,
      endIds: [],
    });
  });

  test.each([
    ['mistral', { architectures: ['MistralForCausalLM'], sliding_window: 32 }, { windows: [32, 32, 32, 32] }],
    ['mistral that does not say', { architectures: ['MistralForCausalLM'] }, { windows: [4096, 4096, 4096, 4096] }],
    ['mistral without', { architectures: ['MistralForCausalLM'], sliding_window: null }, { windows: [0, 0, 0, 0] }],
    [
      'qwen2',
      { architectures: ['Qwen2ForCausalLM'], sliding_window: 32 },
      { windows: [0, 0, 0, 0], qkvBias: true, outputBias: false },
    ],
    [
      'qwen2 with',
      { architectures: ['Qwen2ForCausalLM'], sliding_window: 32, use_sliding_window: true, max_window_layers: 3 },
      { windows: [0, 0, 0, 32] },
    ],
    ['qwen3', { architectures: ['Qwen3ForCausalLM'] }, { headNorms: 'each', headDim: 128, qkvBias: false }],
    [
      'qwen3 that says',
      { architectures: ['Qwen3ForCausalLM'], head_dim: 12, attention_bias: true },
      { headDim: 12, qkvBias: true, outputBias: true },
    ],
    [
      'layer by layer',
      {
        sliding_window: 8,
        layer_types: ['full_attention', 'sliding_attention', 'full_attention', 'sliding_attention'],
      },
      { windows: [0, 8, 0, 8] },
    ],
    ['a model type alone', { architectures: undefined, model_type: 'mistral' }, { architecture: 'MistralForCausalLM' }],
    [
      'new names',
      { rope_parameters: { rope_type: 'linear', factor: 2, rope_theta: 5e5 } },
      { ropes: [{ theta: 5e5, scaling: { type: 'linear', factor: 2 } }] },
    ],
    [
      'phi3 of a first file',
      {
        architectures: ['Phi3ForCausalLM'],
        ...{ original_max_position_embeddings: 128, sliding_window: 64 },
        rope_scaling: { type: 'su', short_factor: [1, 1, 1, 2], long_factor: [1, 2, 3, 4] },
      },
      {
        fused: true,
        windows: [64, 64, 64, 64],
        ropes: [
          {
            turned: 8,
            scaling: {
              ...{ type: 'longrope', trained: 128, shortFactors: [1, 1, 1, 2], longFactors: [1, 2, 3, 4] },
              attentionFactor: Math.sqrt(1 + Math.log(4) / Math.log(128)),
            },
          },
        ],
      },
    ],
    [
      'phi3 that turns a part',
      { architectures: ['Phi3ForCausalLM'], partial_rotary_factor: 0.75, num_attention_heads: 4 },
      { ropes: [{ turned: 12, scaling: { type: 'default' } }], multipliers: { attention: 0.25 } },
    ],
    [
      'smollm3',
      { architectures: ['SmolLM3ForCausalLM'] },
      { ropeOf: [0, 0, 0, undefined], ropes: [{ theta: 2e6 }], tied: true, kvHeads: 4 },
    ],
    [
      'smollm3 with a window where nothing turns',
      {
        architectures: ['SmolLM3ForCausalLM'],
        ...{ no_rope_layer_interval: 2, use_sliding_window: true, sliding_window: 8 },
      },
      { ropeOf: [0, undefined, 0, undefined], windows: [0, 8, 0, 8] },
    ],
    [
      'granite',
      {
        architectures: ['GraniteForCausalLM'],
        ...{ embedding_multiplier: 12, attention_multiplier: 0.5, residual_multiplier: 0.25, logits_scaling: 8 },
      },
      { multipliers: { embedding: 12, attention: 0.5, residual: 0.25, logits: 0.125 } },
    ],
    [
      'olmo2',
      { architectures: ['Olmo2ForCausalLM'] },
      {
        ...{ headNorms: 'together', normEpsilon: 1e-5 },
        norms: { afterAttention: 'post_attention_layernorm', afterMlp: 'post_feedforward_layernorm' },
      },
    ],
    [
      'gemma2 that says nothing',
      { architectures: ['Gemma2ForCausalLM'] },
      {
        ...{ headDim: 256, kvHeads: 4, tied: true, normOffset: 1, activation: 'gelu_tanh', headNorms: 'none' },
        multipliers: { embedding: 8, attention: 1 / 16 },
        softCaps: { attention: 50, logits: 30 },
        windows: [4096, 0, 4096, 0],
      },
    ],
    [
      'gemma3 of a first file',
      {
        architectures: ['Gemma3ForCausalLM'],
        ...{ sliding_window: 512, sliding_window_pattern: 2, rope_theta: 5e5, rope_local_base_freq: 5e3 },
        ...{ rope_scaling: { rope_type: 'linear', factor: 8 }, attn_logit_softcapping: null },
      },
      {
        windows: [512, 0, 512, 0],
        ropeOf: [1, 0, 1, 0],
        ropes: [
          { theta: 5e5, scaling: { type: 'linear', factor: 8 } },
          { theta: 5e3, scaling: { type: 'default' } },
        ],
        softCaps: { attention: 0, logits: 0 },
        headNorms: 'each',
      },
    ],
    [
      'gemma3 that says nothing',
      { architectures: ['Gemma3ForCausalLM'], num_hidden_layers: 7 },
      { windows: [4096, 4096, 4096, 4096, 4096, 0, 4096], ropes: [{ theta: 1e6 }, { theta: 1e4 }] },
    ],
    [
      'mixtral',
      { architectures: ['MixtralForCausalLM'] },
      { experts: { count: 8, chosen: 2, width: 128, normalized: true, blocks: [true, true, true, true] } },
    ],
    [
      'qwen3_moe',
      {
        architectures: ['Qwen3MoeForCausalLM'],
        ...{ num_experts: 16, num_experts_per_tok: 4, decoder_sparse_step: 2, mlp_only_layers: [3] },
      },
      { experts: { count: 16, chosen: 4, width: 768, normalized: false, blocks: [false, true, false, false] } },
    ],
    [
      'qwen3_moe without experts',
      { architectures: ['Qwen3MoeForCausalLM'], num_experts: 0 },
      { experts: undefined, headNorms: 'each' },
    ],
    ['several ends', { eos_token_id: [1, 2] }, { endIds: [1, 2] }],
  ])('%s', (_, change, want) => {
    expect(readModelConfig({ ...LLAMA, ...change })).toMatchObject(want);
  });

  test.each([
    [
      { architectures: ['GPT2LMHeadModel'] },
      'ERR_CHECKPOINT_CONTENT',
      /one of the architectures LlamaForCausalLM, .*, Qwen3MoeForCausalLM, got "GPT2LMHeadModel"/,
    ],
    [{ architectures: ['GemmaForCausalLM'] }, 'ERR_CHECKPOINT_CONTENT', /got "GemmaForCausalLM"/],
    [{ hidden_act: 'gelu' }, 'ERR_CHECKPOINT_CONTENT', /hidden_act "gelu" is not supported/],
    [{ partial_rotary_factor: 0.5 }, 'ERR_CHECKPOINT_CONTENT', /partial_rotary_factor/],
    [
      { rope_parameters: { partial_rotary_factor: 0.5 } },
      'ERR_CHECKPOINT_CONTENT',
      /rope_parameters\.partial_rotary_factor 0\.5/,
    ],
    [
      { rope_parameters: { full_attention: { rope_theta: 1 } } },
      'ERR_CHECKPOINT_CONTENT',
      /rope_parameters\.full_attention/,
    ],
    [
      { rope_scaling: { rope_type: 'proportional' } },
      'ERR_CHECKPOINT_CONTENT',
      /rope_scaling\.rope_type "proportional"/,
    ],
    [
      { rope_scaling: { rope_type: 'longrope' } },
      'ERR_CHECKPOINT_FORMAT',
      /rope_scaling\.short_factor to be 4 positive numbers, one for each pair of a head, got undefined/,
    ],
    [{ quantization_config: { quant_method: 'bitsandbytes' } }, 'ERR_CHECKPOINT_CONTENT', /got "bitsandbytes"/],
    [
      { layer_types: ['chunked_attention', 'full_attention', 'full_attention', 'full_attention'] },
      'ERR_CHECKPOINT_CONTENT',
      /layer_types/,
    ],
    ...(
      [
        ['Llama', { attn_logit_softcapping: 50 }, /attn_logit_softcapping 50 is not supported\. Supported: none/],
        ['Llama', { embedding_multiplier: 12 }, /embedding_multiplier 12 .* 1, or none/],
        ['Qwen3', { num_experts: 8 }, /num_experts 8/],
        ['Llama', { no_rope_layers: [1, 1, 1, 0] }, /no_rope_layers/],
        ['Llama', { clip_qkv: 8 }, /clip_qkv 8/],
        ['Phi3', { attention_bias: true }, /attention_bias true is not supported/],
        ['Phi3', { rope_scaling: { type: 'linear', factor: 2 } }, /rope_scaling .* Supported: longrope/],
        ['Gemma2', { use_bidirectional_attention: true }, /use_bidirectional_attention true/],
        ['Gemma2', { hidden_activation: 'gelu' }, /hidden_activation "gelu" .* Supported: silu, .*gelu_pytorch_tanh/],
        [
          'Gemma3',
          { rope_parameters: { rope_type: 'default' } },
          /rope_parameters .* full_attention and sliding_attention/,
        ],
        ['Mixtral', { attention_bias: true }, /attention_bias true/],
      ] as const
    ).map(
      ([name, change, message]) =>
        [{ architectures: [`${name}ForCausalLM`], ...change }, 'ERR_CHECKPOINT_CONTENT', message] as const,
    ),
    ...(
      [
        ['Phi3', { partial_rotary_factor: 0.4 }, /partial_rotary_factor to leave an even number of the 8 of a head/],
        ['SmolLM3', { no_rope_layers: [1, 0] }, /no_rope_layers to have a 0 or a 1 for each of 4 layers/],
        ['Qwen3Moe', { num_experts: 4 }, /num_experts_per_tok to be an integer in \[1, 4\], got 8/],
        ['Qwen3Moe', { num_experts: 16, num_local_experts: 8 }, /num_local_experts to be 16, as num_experts is, got 8/],
        ['Qwen3Moe', { mlp_only_layers: 3 }, /mlp_only_layers to be a list of layers/],
        ['Mixtral', { num_local_experts: 0 }, /num_local_experts to be at least 1, got 0/],
      ] as const
    ).map(
      ([name, change, message]) =>
        [{ architectures: [`${name}ForCausalLM`], ...change }, 'ERR_CHECKPOINT_FORMAT', message] as const,
    ),
    [{ num_key_value_heads: 3 }, 'ERR_CHECKPOINT_FORMAT', /divide 8 heads, got 3/],
    [{ hidden_size: '64' }, 'ERR_CHECKPOINT_FORMAT', /hidden_size to be an integer/],
    [{ hidden_size: 1e12 }, 'ERR_CHECKPOINT_FORMAT', /hidden_size/],
    [{ rms_norm_eps: 0 }, 'ERR_CHECKPOINT_FORMAT', /rms_norm_eps/],
    [{ rope_scaling: { type: 'linear' } }, 'ERR_CHECKPOINT_FORMAT', /rope_scaling\.factor/],
    [{ eos_token_id: 'end' }, 'ERR_CHECKPOINT_FORMAT', /eos_token_id/],
  ] as const)('refuses %j', (change, code, message) => {
    expect(() => readModelConfig({ ...LLAMA, ...change })).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) as string }),
    );
  });
});
