"""Small models with random weights, of every class whose configuration allows it, and what to give them to compute."""

import copy
import inspect
import json
import re
import time

import torch
import transformers
from transformers import PretrainedConfig

import build

MOST_PARAMETERS = 60_000_000
STEPS_SECONDS = 30  # to shrink a configuration setting by setting
# Sizes, by the names that configurations give them; the first pattern that matches says.
SMALL = [
    (r"^(num_hidden_layers|num_layers|n_layers?|encoder_layers|decoder_layers|num_(en|de)coder_layers|(en|de)coder_num_layers|depth)$", 2),
    (r"key_value_heads|num_kv_heads", 2),
    (r"(attention_)?heads$|n_head|num_heads", 4),
    (r"^head_dim$|_head_dim$|^d_kv$|attention_head_size", 16),
    (r"^(vocab_size|.*_vocab_size)$", 300),
    (r"intermediate|ffn_dim|d_ff|^ffn_hidden|n_inner|d_inner|mlp_dim", 128),
    (r"^(hidden_size|d_model|n_embd|embed_dim|dim|hidden_dim|projection_dim|embedding_size|.*_hidden_size|emb_dim|d_embed)$", 64),
    (r"max_position_embeddings|n_positions|max_seq|n_ctx", 128),
    (r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts)$", 4),
    (r"^(num_experts_per_tok|moe_topk|moe_top_k|num_experts_per_token)$", 2),
    (r"_lora_rank$", 16),
    (r"^(qk_nope_head_dim|qk_rope_head_dim|v_head_dim)$", 16),
    (r"^image_size$", 64),
    (r"^num_queries$", 10),
]


# What follows from other sizes, and what the defaults of a type leave out, by model type.
FOLLOWS = {
    "jamba": lambda c: {"use_mamba_kernels": False},
    "codegen": lambda c: {"rotary_dim": 16},
    "ernie4_5_moe": lambda c: {"moe_k": 2},
    "gpt_neo": lambda c: {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "xlnet": lambda c: {"d_head": c.d_model // c.n_head},
    "mamba2": lambda c: {"num_heads": 8, "head_dim": c.hidden_size * c.expand // 8},
    "bamba": lambda c: {"mamba_n_heads": 8, "mamba_d_head": c.mamba_expand * c.hidden_size // 8},
    "falcon_h1": lambda c: {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16},
    "granitemoehybrid": lambda c: {"mamba_n_heads": 8, "mamba_d_head": c.mamba_expand * c.hidden_size // 8},
    "zamba2": lambda c: {
        "attention_hidden_size": 2 * c.hidden_size, "attention_head_dim": 2 * c.hidden_size // c.num_attention_heads, "n_mamba_heads": 8,
        "mamba_headdim": c.mamba_expand * c.hidden_size // 8, "mamba_ngroups": 1,
        "hybrid_layer_ids": [i for i, kind in enumerate(c.layers_block_type) if kind == "hybrid"],
    },
    "transfo-xl": lambda c: {"cutoffs": [100, 200], "d_embed": c.d_model},
    "mimi": lambda c: {"codebook_size": 64, "num_filters": 8, "upsample_groups": c.hidden_size, "vector_quantization_hidden_dimension": 32},
    "moshi": lambda c: {"audio_vocab_size": 64},
    "florence2": lambda c: {"projection_dim": 64},
    "blt_patcher": lambda c: {"encoder_hash_byte_group_vocab": 100},
    "blt_global_transformer": lambda c: {"encoder_cross_output_size": 128},  # of two times what the encoder has
    "blt": lambda c: {"encoder_hash_byte_group_vocab": 100, "encoder_hash_byte_group_size": [3]},
    "perceiver": lambda c: {"d_latents": 64, "num_latents": 16, "qk_channels": None, "v_channels": None, "d_model": 64},
    "emu3_vqgan": lambda c: {"base_channels": 32, "num_res_blocks": 1},
    "janus_vqgan": lambda c: {"base_channels": 32, "num_res_blocks": 1},
    "chameleon_vqgan": lambda c: {"base_channels": 32, "num_res_blocks": 1},
    "gemma3n_text": lambda c: {
        "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * c.num_hidden_layers, "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 16, "layer_types": (["full_attention", "sliding_attention"] * 16)[: c.num_hidden_layers],
        "intermediate_size": [128] * c.num_hidden_layers,
    },
}  # fmt: skip


def small(config, sizes=True):
    """The configuration with small sizes; without `sizes`, with few layers and words alone."""
    stages = {id(part): list(part.depths) for _, part in build.parts_of(config) if isinstance(getattr(part, "depths", None), list)}
    config, original = build.shrunk(config, 2), config
    for (_, part), (_, before) in zip(build.parts_of(config), build.parts_of(original)):
        for key, value in list(vars(part).items()):
            if isinstance(value, bool) or not isinstance(value, int):
                continue
            for pattern, size in SMALL:
                if re.search(pattern, key):
                    wanted = size if sizes or "vocab" in key else value
                    if value > wanted:
                        build.set_quietly(part, key, wanted)
                    break
        if id(before) in stages:  # models of stages keep them all, or there would be fewer than others ask of them
            restore_stages(part, before, sizes)
        elif isinstance(getattr(part, "stage_names", None), list) and isinstance(getattr(part, "num_hidden_layers", None), int):
            names = ["stem", *(f"stage{i + 1}" for i in range(part.num_hidden_layers))]
            for key, value in (("stage_names", names), ("_out_features", names[-1:]), ("_out_indices", [len(names) - 1])):
                build.set_quietly(part, key, value)
        for key, value in FOLLOWS.get(getattr(part, "model_type", ""), lambda _: {})(part).items() if sizes else ():
            build.set_quietly(part, key, value)
        words = getattr(part, "vocab_size", None)
        for key, value in list(vars(part).items()):
            if key.endswith("token_id") or key.endswith("token_index") or key.endswith("_token"):
                if isinstance(value, int) and not isinstance(value, bool) and isinstance(words, int) and value >= words:
                    build.set_quietly(part, key, words - 1 - (sum(map(ord, key)) % 20 if key != "pad_token_id" else 0))
    return config


def restore_stages(part, before, sizes):
    count = len(before.depths)
    for key, value in vars(before).items():
        if isinstance(value, (list, tuple)) and len(value) in (count, count + 1):
            build.set_quietly(part, key, copy.deepcopy(value))
    build.set_quietly(part, "depths", [1] * count)
    for key in ("num_layers", "num_hidden_layers"):
        if isinstance(getattr(before, key, None), int) and getattr(before, key) == count:
            build.set_quietly(part, key, count)
    if sizes and isinstance(getattr(before, "num_heads", None), list) and isinstance(getattr(before, "embed_dim", None), int):
        build.set_quietly(part, "num_heads", [2] * count)
        build.set_quietly(part, "embed_dim", 32)
        build.set_quietly(part, "hidden_size", 32 * 2 ** (count - 1))


def shrunk_step_by_step(cls, config):
    """What of `small` a class allows, setting by setting: each that it cannot be built with stays as it was."""
    config = build.completed(build.shrunk(config, 2))
    if not builds(cls, config):
        config = build.completed(config)
        if not builds(cls, config):
            return config
    deadline = time.monotonic() + STEPS_SECONDS
    for path, part in list(build.parts_of(config)):
        for pattern, size in SMALL:
            for key, value in list(vars(part).items()):
                if isinstance(value, bool) or not isinstance(value, int) or not re.search(pattern, key) or time.monotonic() > deadline:
                    continue
                for wanted in (size, 2 * size, 4 * size):
                    if value <= wanted:
                        break
                    tried = copy.deepcopy(config)
                    target = tried
                    for name in path:
                        target = getattr(target, name)
                    build.set_quietly(target, key, wanted)
                    if builds(cls, tried):
                        config = tried
                        break
    return config


def builds(cls, config):
    """Whether a class can be built, also from the configuration as it is read again from a file."""
    try:
        build.build(cls, config)
        again = type(config).from_dict(json.loads(config.to_json_string(use_diff=False)))
        build.build(cls, again)
    except Exception:
        return False
    return True


def configurations(cls):
    """Ever larger ones."""
    config = build.default_config(cls)
    yield lambda: small(config)
    yield lambda: build.completed(small(config))
    yield lambda: small(config, False)
    yield lambda: build.completed(small(config, False))
    yield lambda: shrunk_step_by_step(cls, config)
    yield lambda: config


def model(cls):
    """(model, inputs or None): inputs are what it computes something from."""
    best, reasons = None, []
    for index, make in enumerate(configurations(cls)):
        if best is not None and index >= 4:
            break  # small as it is meant to be, and computes nothing from plain inputs: larger ones do not either
        try:
            config = make()
            empty = build.build(cls, config)
            count = sum(p.numel() for p in empty.parameters())
            if count > MOST_PARAMETERS:
                reasons.append(f"{count / 1e6:.0f} M parameters")
                continue
            type(config).from_dict(json.loads(config.to_json_string(use_diff=False)))
            torch.manual_seed(0)
            made = cls(config).eval()
            if getattr(made, "generation_config", None) is not None:
                made.generation_config = transformers.GenerationConfig()
            fill(made)
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")
            continue
        inputs = usable_inputs(made)
        if inputs is not None:
            return made, inputs, []
        best = best or made
    return best, None, reasons


@torch.no_grad()
def fill(made):
    """Numbers instead of zeros, or of what a class leaves as it was allocated."""
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, 0.05, generator=generator)
        elif not torch.isfinite(parameter).all() or parameter.abs().max() == 0:
            parameter.normal_(0, 0.05, generator=generator)


def usable_inputs(made):
    for inputs in candidate_inputs(made):
        try:
            outputs = compute(made, inputs)
        except Exception:
            continue
        if outputs and all(torch.isfinite(t).any() for t in outputs):
            return inputs
    return None


@torch.no_grad()
def compute(made, inputs):
    """The floating-point tensors of what a model gives, as a list."""
    torch.manual_seed(0)
    outputs = made(**{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()})
    values = outputs.to_tuple() if hasattr(outputs, "to_tuple") else outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    flat = []

    def gather(value):
        if isinstance(value, torch.Tensor):
            if value.is_floating_point():
                flat.append(value.float())
        elif isinstance(value, (tuple, list)):
            for item in value:
                gather(item)

    gather(values)
    return flat


def attribute(config, names, default):
    for _, part in build.parts_of(config):
        for name in names:
            value = getattr(part, name, None)
            if isinstance(value, (list, tuple)) and value and all(isinstance(v, int) for v in value):
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return default


def candidate_inputs(made):
    config = made.config
    parameters = inspect.signature(made.forward).parameters
    words = min(attribute(config, ["vocab_size"], 100), 100)
    length = 16
    ids = torch.randint(3, max(words - 1, 4), (1, length), generator=torch.Generator().manual_seed(2))
    channels = attribute(config, ["num_channels", "in_channels", "in_chans"], 3)
    size = attribute(config, ["image_size", "img_size", "crop_size"], 64)
    generator = torch.Generator().manual_seed(3)
    mel = attribute(config, ["num_mel_bins", "feature_size", "input_feat_per_channel"], 80)
    hidden = attribute(config, ["hidden_size", "d_model"], 64)
    frames = attribute(config, ["num_frames"], 4)
    noise = lambda *shape: torch.randn(*shape, generator=generator)
    source = attribute(config, ["max_source_positions"], 0)
    given = {
        "input_ids": [ids],
        "decoder_input_ids": [ids[:, :8]],
        "pixel_values": [noise(1, channels, size, size), noise(1, frames, channels, size, size), noise(1, channels, 224, 224)],
        "pixel_values_videos": [noise(1, frames, channels, size, size)],
        "input_values": [noise(1, 4000), noise(1, 1, 4000), noise(1, 1024, 128)],
        "input_features": [noise(1, mel, 2 * source), noise(1, 100, mel), noise(1, mel, 100)],
        "bbox": [torch.zeros(1, length, 4, dtype=torch.long)],
        "inputs": [noise(1, 16, hidden)],
        "inputs_embeds": [noise(1, length, hidden)],
        "hidden_states": [noise(1, length, hidden)],
        "question_ids": [ids],
        "past_values": [noise(1, 64, attribute(config, ["num_input_channels"], 1)), noise(1, 64)],
    }
    needed = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and p.kind == p.POSITIONAL_OR_KEYWORD]
    main = getattr(made, "main_input_name", "input_ids")
    main = main if isinstance(main, str) else main[0]  # of OneFormer a list
    sets = [
        [*needed],
        [main, *needed],
        ["input_ids", *needed],
        ["pixel_values", *needed],
        ["input_ids", "pixel_values", *needed],
        [main, "decoder_input_ids", *needed],
        ["input_ids", "decoder_input_ids", *needed],
        ["input_ids", "bbox", *needed],
        ["inputs_embeds", *needed],
    ]
    seen = set()
    for names in sets:
        names = list(dict.fromkeys(n for n in names if n in parameters))
        if not names or any(n not in given for n in names) or tuple(names) in seen:
            continue
        seen.add(tuple(names))
        for index in range(max(len(given[n]) for n in names)):
            yield {n: given[n][min(index, len(given[n]) - 1)] for n in names}
