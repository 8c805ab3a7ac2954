"""Builds the model classes of transformers without weights, from configurations that show what a class may hold."""

import contextlib
import copy
import importlib
import inspect
import pathlib
import pkgutil
import re

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

LAYERS = {
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "depth", "num_decoder_layers",
    "num_encoder_layers", "decoder_num_layers", "encoder_num_layers", "num_blocks", "num_attention_layers",
}
# What changes nothing about modules, or how results are given.
IDLE = {
    "use_cache", "return_dict", "output_hidden_states", "output_attentions", "torchscript", "tf_legacy_loss", "is_decoder",
    "use_bfloat16", "chunk_size_feed_forward", "output_scores", "return_dict_in_generate", "pruned_heads",
    "remove_invalid_values", "tie_encoder_decoder", "cross_attention_hidden_size", "early_stopping", "do_sample", "gradient_checkpointing",
}


def model_classes(names=None):
    """Every class that `architectures` of a config.json may name, by its name; of `names` alone, where the others need no import."""
    found = {}
    wanted = names and re.compile(rf"^class ({'|'.join(map(re.escape, names))})\b", re.MULTILINE)
    for info in pkgutil.walk_packages(transformers.models.__path__, "transformers.models.", onerror=lambda _: None):
        file = info.name.rpartition(".")[2]
        if not file.startswith("modeling_") or file.startswith(("modeling_tf_", "modeling_flax_")):
            continue
        if wanted and not wanted.search(source(info)):
            continue
        try:
            module = importlib.import_module(info.name)
        except Exception:  # a package that this one needs is missing
            continue
        for name, cls in vars(module).items():
            if not inspect.isclass(cls) or not issubclass(cls, PreTrainedModel) or cls.__module__ != module.__name__:
                continue
            if getattr(cls, "config_class", None) is not None and not name.endswith("PreTrainedModel"):
                found[name] = cls
    return dict(sorted(found.items()))


def source(info):
    return pathlib.Path(info.module_finder.path, f"{info.name.rpartition('.')[2]}.py").read_text(encoding="utf-8")


def roles():
    """Of each model type, the class of its bare model and that of its causal language model."""
    from transformers.models.auto import modeling_auto as auto

    bare, causal = dict(auto.MODEL_MAPPING_NAMES), dict(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    first = lambda value: (value if isinstance(value, str) else value[0]) if value else ""
    return {kind: [first(bare.get(kind)), first(causal.get(kind))] for kind in {**bare, **causal}}


def parts_of(config, depth=0):
    """A configuration and those of its parts: (path, configuration)."""
    yield (), config
    if depth < 3:
        for name, value in list(vars(config).items()):
            if isinstance(value, PretrainedConfig):
                for path, part in parts_of(value, depth + 1):
                    yield (name, *path), part


# What configurations must be told that are complete by default in no other way.
NEEDED = {
    "AutoformerConfig": {"prediction_length": 8},
    "InformerConfig": {"prediction_length": 8},
    "TimeSeriesTransformerConfig": {"prediction_length": 8},
    "Dots1Config": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 4, "IMGIMGBS00": 5}},
    "GraniteMoeHybridConfig": {"layer_types": ["mamba", "attention"] * 16},
    "Emu3Config": {"vocabulary_map": {"<image>": 4}},
    "DeepseekOcr2TextConfig": {"mlp_layer_types": ["dense", "sparse"] * 16},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"] * 16},
    "EsmConfig": {"vocab_size": 33, "pad_token_id": 1},
    "Phi4MultimodalConfig": {"vision_config": {}, "audio_config": {}, "pad_token_id": 0},
    "ReformerConfig": {"is_decoder": True, "axial_pos_embds": False},
    "TimmBackboneConfig": {"backbone": "resnet18"},
    "ViltConfig": {"num_images": 2, "modality_type_vocab_size": 3},
    "Wav2Vec2BertConfig": {"vocab_size": 32},
    "Wav2Vec2ConformerConfig": {"vocab_size": 32},
}


def completed(config):
    """The same with what it leaves to be worked out: sizes that follow from others."""
    config = copy.deepcopy(config)
    for _, part in parts_of(config):
        words, padding = getattr(part, "vocab_size", None), getattr(part, "pad_token_id", None)
        if isinstance(words, int) and isinstance(padding, int) and padding >= words:
            set_quietly(part, "pad_token_id", 0)
        if getattr(part, "rope_scaling", 0) is None:
            set_quietly(part, "rope_scaling", {"rope_type": "default", "mrope_section": [16, 24, 24]})
        hidden, heads = getattr(part, "hidden_size", None), getattr(part, "num_attention_heads", None)
        if not isinstance(hidden, int) or not isinstance(heads, int):
            continue
        if hidden % heads:
            heads = next(n for n in range(heads, 0, -1) if hidden % n == 0)
            set_quietly(part, "num_attention_heads", heads)
        for key, value in (("head_dim", hidden // heads), ("num_key_value_heads", heads), ("intermediate_size", 2 * hidden)):
            if getattr(part, key, value) is None:
                set_quietly(part, key, value)
    return config


def default_config(cls):
    """The configuration that a class has by default; of those that have none, one of common parts."""
    kind = cls.config_class
    if cls.__name__.startswith("Blip2QFormer"):
        kind = transformers.Blip2QFormerConfig
    name = kind.__name__
    config = composed(name, kind) or kind(**NEEDED.get(name, {}))
    for _, part in parts_of(config):
        if getattr(part, "use_pretrained_backbone", False):
            set_quietly(part, "use_pretrained_backbone", False)
    return config


def composed(name, kind):
    """The configuration of a class that is made of others; None for others."""
    if name in ("EncoderDecoderConfig", "SpeechEncoderDecoderConfig", "VisionEncoderDecoderConfig"):
        encoder = {"E": "Bert", "S": "Wav2Vec2", "V": "ViT"}[name[0]]
        decoder = transformers.BertConfig(is_decoder=True, add_cross_attention=True)
        return kind.from_encoder_decoder_configs(getattr(transformers, f"{encoder}Config")(), decoder)
    if name == "VisionTextDualEncoderConfig":
        return kind.from_vision_text_configs(transformers.ViTConfig(), transformers.BertConfig())
    if name == "RagConfig":
        return kind.from_question_encoder_generator_configs(transformers.DPRConfig(), transformers.BartConfig())
    if name in ("MusicgenConfig", "MusicgenMelodyConfig"):
        decoder = getattr(transformers, name.replace("Config", "DecoderConfig"))()
        parts = (transformers.T5Config(), transformers.EncodecConfig(), decoder)
        if hasattr(kind, "from_sub_models_config"):
            return kind.from_sub_models_config(*parts)
        return kind(**{name: part.to_dict() for name, part in zip(("text_encoder", "audio_encoder", "decoder"), parts, strict=True)})
    return None


# Words in names of settings that change how a model computes, and not what it is made of.
COMPUTING = re.compile(
    "bias|drop|norm|mask|loss|init|flash|return|output_(?!size)|scale|cache|interleave|causal|fp32|train|logit|spec|ctc|clip|act_fn|"
    "round|shuffle|deterministic|token_id|temperature|reduction|summary|sliding|rope|rotary_pct|memory|static"
)
EXPERTS = {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts"}


def shrunk(config, layers=4):
    """The same with a few layers and experts; lists that say something of each layer keep what differs."""
    config = copy.deepcopy(config)
    for _, part in parts_of(config):
        count = next((v for k, v in vars(part).items() if k in LAYERS and isinstance(v, int)), None)
        for key, value in list(vars(part).items()):
            if key in LAYERS and isinstance(value, int) and value > layers:
                set_quietly(part, key, layers)
            elif key in EXPERTS and isinstance(value, int) and value > 8:
                set_quietly(part, key, 8)
            elif isinstance(value, list) and count is not None and len(value) == count > layers:
                different = list(dict.fromkeys(map(str, value)))
                kept = [value[[str(v) for v in value].index(d)] for d in different]
                set_quietly(part, key, (kept + value)[:layers])
    return config


def set_quietly(config, key, value):
    with contextlib.suppress(Exception):
        setattr(config, key, value)


def variants(config):
    """Configurations that differ in one thing that may add, take away or change modules."""
    for path, part in parts_of(config):
        for key, value in sorted(vars(part).items()):
            if key.startswith("_") or key in IDLE or (COMPUTING.search(key) and not key.startswith("tie_")):
                continue
            for other in others(key, value):
                copied = copy.deepcopy(config)
                target = copied
                for name in path:
                    target = getattr(target, name)
                try:
                    setattr(target, key, other)
                except Exception:
                    continue
                yield ".".join((*path, key)), copied


def others(key, value):
    if isinstance(value, bool):
        return [not value]
    if "expert" in key and "token" not in key and "per_tok" not in key and value in (0, 1, None):
        return [4]
    if "expert" in key and "_per" not in key and isinstance(value, int) and value > 1 and "num" in key:
        return [0]
    if key in ("decoder_sparse_step", "expert_interval", "moe_layer_freq", "encoder_sparse_step", "moe_every_n_layers"):
        return [1]
    if key.endswith("_rank"):
        return [64] if value is None else [None]
    if value is None and (key.endswith(("_size", "_dim", "_width")) or key in ("num_labels", "embed_proj_dim")):
        return [64]
    if key in ("embedding_size", "word_embed_proj_dim", "d_embed", "embed_dim_out") and isinstance(value, int):
        return [value // 2]
    if key == "position_embedding_type":
        return ["relative_key_query"]
    if key in ("feat_extract_norm",):
        return ["layer", "group"]
    if key == "feed_forward_proj":
        return ["gated-gelu", "relu"]
    return []


@contextlib.contextmanager
def without_weights():
    """No memory for parameters, and no time for their first values."""
    names = [n for n in vars(torch.nn.init) if n.endswith("_")]
    kept = {n: getattr(torch.nn.init, n) for n in names}
    weights = PreTrainedModel.init_weights
    try:
        for n in names:
            setattr(torch.nn.init, n, lambda tensor, *args, **kwargs: tensor)
        PreTrainedModel.init_weights = lambda self: self.tie_weights()
        yield
    finally:
        for n, function in kept.items():
            setattr(torch.nn.init, n, function)
        PreTrainedModel.init_weights = weights


def build(cls, config):
    """A model of this class on the meta device."""
    config = copy.deepcopy(config)
    with without_weights():
        try:
            with torch.device("meta"):
                return cls(config)
        except Exception as first:
            from accelerate import init_empty_weights

            try:
                with init_empty_weights(include_buffers=False):
                    return cls(copy.deepcopy(config))
            except Exception:
                raise first from None
