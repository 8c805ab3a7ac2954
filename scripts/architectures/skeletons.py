"""Names and shapes of tiny models of some classes, for test/models/architectures.test.ts: skeletons.py OUTPUT CLASS ..."""

import json
import logging
import os
import shutil
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"  # some classes would fetch weights of their backbones

import brotli
from safetensors import safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

import build
import tiny


def skeleton(cls):
    model, _, reasons = tiny.model(cls)
    if model is None:
        raise RuntimeError(f"{cls.__name__}: {reasons}")
    folder = tempfile.mkdtemp()
    try:
        model.save_pretrained(folder)
        with safe_open(f"{folder}/model.safetensors", "np") as file:
            tensors = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
        config = json.load(open(f"{folder}/config.json"))
    finally:
        shutil.rmtree(folder)
    modules = dict(model.named_modules(remove_duplicate=False))
    head = model.get_output_embeddings()
    return {
        "class": cls.__name__,
        "config": config,
        "tensors": tensors,
        "linear": sorted(n for n, m in modules.items() if isinstance(m, nn.Linear)),
        "transposed": sorted(n for n, m in modules.items() if isinstance(m, Conv1D)),
        "head": next((n for n, m in modules.items() if m is head and isinstance(m, nn.Linear)), None),
    }


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    output, *names = sys.argv[1:]
    classes = build.model_classes()
    found = []
    for name in names:
        try:
            found.append(skeleton(classes[name]))
        except Exception as error:
            print(name, error, file=sys.stderr)
    text = json.dumps(found)
    with open(output, "wb") as file:
        file.write(brotli.compress(text.encode(), quality=11, lgwin=24))
    print(len(found), "classes,", len(text), "bytes")


if __name__ == "__main__":
    main()
