"""What the matrices of a model are: by module names, in one letter each."""

import ast
import re
import sys

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# L linear | F linear, which transformers keeps in float32 | R linear, whose weight is read past its forward | H output head
# I and J as L and F, but transformers 5 reads their weight as it loads a model: a module that has none then (compressed-tensors) ends that
# T Conv1D, [in, out] | E embedding | X stack of experts [expert, in, out] | Y the same [expert, out, in] | P any other matrix

PREPARING = re.compile(r"^(__init__|_?init|_?tie|reset|_reset|get_|set_|resize|_resize|prune|load|save|convert|_load|_save|from_|extra_repr)")
# Subclasses of nn.Linear whose forward is that of nn.Linear.
PLAIN = {"FalconLinear"}
_read, _files = {}, {}


def weights_read(cls):
    """Paths from self of which a method of the class reads `.weight`, but for its type and place."""
    if cls not in _read:
        _read[cls] = set()
        for base in cls.__mro__:
            if base.__module__.startswith("transformers.models"):
                _read[cls] |= read_in(base.__module__).get(base.__name__, set())
    return _read[cls]


def read_in(module):
    """`weights_read` of the classes that a file itself defines."""
    if module not in _files:
        with open(sys.modules[module].__file__) as file:
            text = file.read()
        classes = {}
        if ".weight" in text:
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef):
                    methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and not PREPARING.match(m.name)]
                    classes[node.name] = {path for method in methods for path in reads(method)}
        _files[module] = classes
    return _files[module]


def reads(method):
    harmless = set()
    for node in ast.walk(method):
        if isinstance(node, ast.If) and "pretraining_tp" in ast.unparse(node.test):  # Bloom, as it was trained
            harmless |= {id(below) for statement in node.body for below in ast.walk(statement)}
        if isinstance(node, ast.Attribute) and node.attr in ("dtype", "device"):
            harmless.add(id(node.value))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            harmless |= {id(arg) for arg in node.args}
    for node in ast.walk(method):
        if isinstance(node, ast.Attribute) and node.attr == "weight" and id(node) not in harmless:
            path, at = [], node.value
            while isinstance(at, ast.Attribute):
                path.append(at.attr)
                at = at.value
            if isinstance(at, ast.Name) and at.id == "self" and path:
                yield tuple(reversed(path))


class Missing(AttributeError):
    """The weight of a layer that has none."""

    def __init__(self, module):
        super().__init__("weight")
        self.module = module


@torch.no_grad()
def read_at_loading(model):
    """The linear layers, by id, without whose weight transformers 5 cannot load a model: it gives first values to modules that have them
    already, and what some classes do for that asks each layer for its weight."""
    if not hasattr(transformers, "initialization"):
        return set()
    weights = {module: module._parameters.pop("weight") for module in model.modules() if isinstance(module, nn.Linear) and "weight" in module._parameters}
    original = nn.Module.__getattr__

    def asked(self, name):
        if name == "weight" and self in weights:
            raise Missing(self)
        return original(self, name)

    read = set()
    try:
        nn.Module.__getattr__ = asked
        for module, owner in with_owners(model, model):
            while True:
                try:
                    owner._init_weights(module)
                except Missing as missing:  # the next time it is there
                    read.add(id(missing.module))
                    missing.module._parameters["weight"] = weights.pop(missing.module)
                    continue
                except Exception:  # without numbers, there is no more to be seen
                    pass
                break
    finally:
        nn.Module.__getattr__ = original
        for module, weight in weights.items():
            module._parameters["weight"] = weight
    return read


def with_owners(module, owner):
    """Modules from below, each with the model whose `_init_weights` is called for it."""
    for child in module.children():
        yield from with_owners(child, child if isinstance(child, PreTrainedModel) else owner)
    yield module, owner


def kinds_of(model):
    """Of each matrix of the model, by the name of its module (or its own, if it is no `weight`), what it is."""
    modules = dict(model.named_modules(remove_duplicate=False))
    past = set()
    for module in modules.values():
        for path in weights_read(type(module)):
            child = module
            for name in path:
                child = getattr(child, name, None)
            if isinstance(child, nn.Linear):
                past.add(id(child))
        for value in vars(module).values():  # what a list keeps is computed with, whatever takes its place among the modules
            for held in value if isinstance(value, (list, tuple)) else ():
                if isinstance(held, nn.Module):
                    past |= {id(below) for below in held.modules() if isinstance(below, nn.Linear)}
    kept = [*(getattr(model, "_keep_in_fp32_modules", None) or []), *(getattr(model, "_keep_in_fp32_modules_strict", None) or [])]
    in_float = re.compile("|".join(rf"((^|\.){re.escape(k)}($|\.))" for k in kept)) if kept else None
    head = output_head(model)
    asked = read_at_loading(model)
    kinds = {}
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **model.state_dict(keep_vars=True)}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner)
        if module is None or tensor.dim() not in (2, 3):
            continue
        key = owner if leaf == "weight" and owner else name
        if tensor.dim() == 3:
            called = f"{name} {type(module).__name__}".lower()
            if "expert" in called and not isinstance(module, nn.modules.conv._ConvNd):
                kinds[key] = stack_kind(model, module, name, tensor)
        elif leaf != "weight":
            kinds[key] = "P"
        elif isinstance(module, nn.Linear):
            own = type(module).forward is not nn.Linear.forward and type(module).__name__ not in PLAIN
            special = own or type(module).__name__ == "NonDynamicallyQuantizableLinear" or id(module) in past
            plain = "F" if in_float and in_float.search(owner) else "L"
            plain = {"L": "I", "F": "J"}[plain] if id(module) in asked else plain
            kinds[key] = "H" if module is head else "R" if special else plain
        elif isinstance(module, Conv1D):
            kinds[key] = "T"
        else:
            kinds[key] = "E" if isinstance(module, nn.Embedding) else "P"
    return kinds


def output_head(model):
    try:
        head = model.get_output_embeddings()
    except Exception:
        return None
    return head if isinstance(head, nn.Linear) else None


def stack_kind(model, module, name, tensor):
    """Which way the matrices of a stack of experts lie: the side that is as long as the hidden size tells."""
    config = getattr(module, "config", None) or model.config.get_text_config()
    hidden = getattr(config, "hidden_size", None) or getattr(module, "hidden_size", None) or getattr(module, "hidden_dim", None)
    rows, columns = tensor.shape[1:]
    down = re.search(r"down|output|w2|wo|fc2", name.rpartition(".")[2])
    if getattr(module, "is_transposed", None) is True:
        return "X"
    if rows == columns or hidden not in (rows, columns):
        return "Y"
    return "Y" if (rows == hidden) == bool(down) else "X"


def ties_of(model):
    """Tied matrices: {name: name of the one that a file holds}, by modules as in `kinds_of`."""
    alike = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if tensor.dim() >= 2 and name.endswith(".weight"):
            alike.setdefault(id(tensor), []).append(name[: -len(".weight")])
    keys = getattr(model, "_tied_weights_keys", None) or []
    named = keys.items() if isinstance(keys, dict) else [(key, None) for key in keys]
    patterns = [re.compile(key) for key, _ in named]
    ties = {}
    for names in alike.values():
        if len(names) < 2:
            continue
        tied = [n for n in names if any(p.search(f"{n}.weight") for p in patterns)]
        source = next((n for n in names if n not in tied), names[0])
        ties.update({n: source for n in names if n != source})
    return ties


def parts_by_config(model):
    """Modules that config.json chooses: {path: (path in the configuration, class)}, where a part of it says what they are."""
    parts = {}
    config = model.config
    named = {id(getattr(config, k)): k for k in vars(config) if hasattr(getattr(config, k, None), "model_type")}
    for name, module in model.named_modules():
        own = getattr(module, "config", None)
        if name and isinstance(module, PreTrainedModel) and id(own) in named and not any(name.startswith(f"{p}.") for p in parts):
            parts[name] = (named[id(own)], type(module).__name__)
    return parts
