"""Tiny models with random weights, of the families that engines load: tiny.py FOLDER writes a folder for each below it."""

import os
import sys

import torch
from transformers import (
    LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM,
    GptOssConfig, GptOssForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig,
    Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM,
)  # fmt: skip

COMMON = dict(
    vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip

FAMILIES = {
    "llama-tied": (LlamaConfig, LlamaForCausalLM, dict(tie_word_embeddings=True)),
    "llama-biases": (LlamaConfig, LlamaForCausalLM, dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True)),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, dict(tie_word_embeddings=False)),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, dict(tie_word_embeddings=True, head_dim=32)),
    "mistral": (MistralConfig, MistralForCausalLM, dict(tie_word_embeddings=False)),
    "mixtral": (MixtralConfig, MixtralForCausalLM, dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen3-moe": (
        Qwen3MoeConfig, Qwen3MoeForCausalLM,
        dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=128, head_dim=32, decoder_sparse_step=1),
    ),
    "gpt-oss": (GptOssConfig, GptOssForCausalLM, dict(num_local_experts=4, num_experts_per_tok=2, head_dim=32)),
    "qwen3.5-moe-stacks": (
        Qwen3_5MoeTextConfig, Qwen3_5MoeForCausalLM,
        dict(
            num_experts=4, num_experts_per_tok=2, moe_intermediate_size=192, shared_expert_intermediate_size=64, head_dim=32,
            linear_key_head_dim=32, linear_value_head_dim=32, linear_num_key_heads=2, linear_num_value_heads=4,
            layer_types=["linear_attention", "full_attention"],
        ),
    ),
}  # fmt: skip
# As above, with the experts of a layer in one tensor, as these are in memory.
FAMILIES |= {f"{name}-stacks": FAMILIES[name] for name in ("mixtral", "qwen3-moe")}


def main(folder):
    torch.manual_seed(0)
    for name, (config, kind, own) in FAMILIES.items():
        model = kind(config(**COMMON, **own)).float()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith(".bias"):
                    parameter.normal_(0, 0.02)
        how = {"max_shard_size": "200KB"} if name == "qwen2" else {}
        if name.endswith("-stacks"):
            how["save_original_format"] = False
        model.save_pretrained(os.path.join(folder, name), **how)
        print(name, flush=True)


main(sys.argv[1])
