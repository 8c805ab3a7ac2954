"""Writes test/golden/language-models.json: logits of small models as Hugging Face transformers computes them.

    pip install torch "transformers==4.46.3"
    python scripts/golden-language-models.py            all of them
    python scripts/golden-language-models.py qwen3 phi3     those whose names begin so, in place of what the file has of such, with a
                                                            transformers that has the families (all but the first four: 5.24.0)

Weights follow from a formula (test/support/golden-models.ts has it too), so the file holds configs and logits only.
"""
import json
import pathlib
import sys

import torch
import transformers

LENGTHS = [20, 300]  # short of what the models were trained for, and far beyond, in more than one job
BASE = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=40,
    max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=None, pad_token_id=None,
)
LLAMA3 = dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type='yarn', factor=4.0, beta_fast=16.0, beta_slow=2.0, attention_factor=1.3)
LONGROPE = dict(
    rope_type='longrope', short_factor=[1 + i / 8 for i in range(6)], long_factor=[2 + i * i / 2 for i in range(6)])
ALTERNATING = ['sliding_attention', 'full_attention', 'sliding_attention']
CASES = {
    'llama': ('Llama', {}),
    'llama, tied': ('Llama', dict(tie_word_embeddings=True)),
    'llama, biases everywhere': ('Llama', dict(attention_bias=True, mlp_bias=True)),
    'llama, heads of another size': ('Llama', dict(head_dim=12)),
    'llama, linear': ('Llama', dict(rope_scaling=dict(rope_type='linear', factor=2.5))),
    'llama, dynamic': ('Llama', dict(rope_scaling=dict(rope_type='dynamic', factor=2.0))),
    'llama, llama3': ('Llama', dict(head_dim=32, rope_theta=500000.0, rope_scaling=LLAMA3)),
    'llama, yarn': ('Llama', dict(head_dim=32, rope_scaling=dict(rope_type='yarn', factor=4.0))),
    'llama, yarn with all it has': ('Llama', dict(head_dim=32, rope_scaling=YARN)),
    'mistral, sliding window': ('Mistral', dict(sliding_window=9)),
    'mistral, no window': ('Mistral', dict(sliding_window=None)),
    'qwen2': ('Qwen2', dict(tie_word_embeddings=True)),
    'qwen2, sliding window': ('Qwen2', dict(use_sliding_window=True, sliding_window=9, max_window_layers=0)),
    'qwen3': ('Qwen3', dict(head_dim=12)),
    'qwen3, tied': ('Qwen3', dict(head_dim=8, tie_word_embeddings=True)),
    'phi3': ('Phi3', {}),
    'phi3, longrope in a part of each head, sliding window': ('Phi3', dict(
        hidden_size=64, sliding_window=9, max_position_embeddings=256, original_max_position_embeddings=32,
        rope_parameters=dict(LONGROPE, partial_rotary_factor=0.75))),
    'smollm3': ('SmolLM3', dict(num_hidden_layers=4)),
    'smollm3, sliding window': ('SmolLM3', dict(
        no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=9, tie_word_embeddings=False)),
    'granite': ('Granite', dict(
        embedding_multiplier=2.5, attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=3.0)),
    'granite, biases everywhere': ('Granite', dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    'olmo2': ('Olmo2', {}),
    'gemma2': ('Gemma2', dict(
        head_dim=12, query_pre_attn_scalar=20, sliding_window=9, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)),
    'gemma2, no caps': ('Gemma2', dict(head_dim=8, attn_logit_softcapping=None, final_logit_softcapping=None)),
    'gemma3': ('Gemma3', dict(head_dim=12, query_pre_attn_scalar=20, sliding_window=9, layer_types=ALTERNATING)),
    'gemma3, cap, linear': ('Gemma3', dict(
        head_dim=8, sliding_window=9, layer_types=ALTERNATING, final_logit_softcapping=3.0, tie_word_embeddings=False,
        rope_parameters=dict(full_attention=dict(rope_type='linear', factor=4.0, rope_theta=5e5),
                             sliding_attention=dict(rope_type='default', rope_theta=5e3)))),
    'mixtral': ('Mixtral', dict(intermediate_size=24, num_local_experts=5)),
    'mixtral, one expert, sliding window': ('Mixtral', dict(
        intermediate_size=24, num_local_experts=4, num_experts_per_tok=1, sliding_window=9, head_dim=12)),
    'qwen3_moe': ('Qwen3Moe', dict(head_dim=12, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=16)),
    'qwen3_moe, some blocks without': ('Qwen3Moe', dict(
        head_dim=8, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True, attention_bias=True,
        num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3])),
}


def generator():
    state = 1
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state / 2**32 - 0.5


def fill(model):
    numbers = generator()
    tied = model.config.tie_word_embeddings
    tensors = {name: p for name, p in model.named_parameters() if not (tied and name == 'lm_head.weight')}
    for name in sorted(tensors):
        p = tensors[name]
        values = torch.tensor([next(numbers) for _ in range(p.numel())], dtype=torch.float64).reshape(p.shape)
        if 'norm' in name:
            values = 1 + values
        elif p.dim() > 1:
            values = values * 4 / p.shape[-1] ** 0.5
        p.data = values.float()
    model.tie_weights()


def main():
    prefixes = tuple(sys.argv[1:])
    chosen = lambda name: not prefixes or name.startswith(prefixes)
    path = pathlib.Path(__file__).parent.parent / 'test' / 'golden' / 'language-models.json'
    kept = json.loads(path.read_text()) if prefixes else {}
    cases = [case for case in kept.get('cases', []) if not chosen(case['name'])]
    for name, (family, extra) in CASES.items():
        if not chosen(name):
            continue
        config = getattr(transformers, 'Gemma3TextConfig' if family == 'Gemma3' else f'{family}Config')(**{**BASE, **extra}, attn_implementation='eager', experts_implementation='eager')
        model = getattr(transformers, f'{family}ForCausalLM')(config).eval()
        fill(model)
        ids = [(i * i * 7 + i * 3) % 40 for i in range(max(LENGTHS))]
        with torch.no_grad():
            logits = [model.double()(torch.tensor([ids[:n]]), use_cache=False).logits[0, -1].tolist() for n in LENGTHS]
        written = json.loads(config.to_json_string())
        written = {key: value for key, value in written.items() if key not in ('torch_dtype', 'transformers_version') and key[0] != '_'}
        written['architectures'] = [f'{family}ForCausalLM']
        cases.append(dict(name=name, config=written, logits=[[round(v, 7) for v in row] for row in logits]))
    head = dict(transformers=kept.get('transformers', transformers.__version__), lengths=LENGTHS)
    lines = ',\n'.join(json.dumps(case) for case in cases)
    path.write_text(json.dumps(head)[:-1] + ', "cases": [\n' + lines + '\n]}\n')


main()
