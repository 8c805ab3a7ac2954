"""Makes test/golden/adapters.json: small models, adapters of them, and what peft's own merge makes of these.

    pip install torch transformers peft==0.17.1
    python scripts/golden-adapters.py test/golden/adapters.json
"""

import base64
import json
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D


class Block(torch.nn.Module):
    def __init__(self, transposed):
        super().__init__()
        self.query = Conv1D(12, 8) if transposed else torch.nn.Linear(8, 12)
        self.out = Conv1D(8, 12) if transposed else torch.nn.Linear(12, 8)


class Model(torch.nn.Module):
    def __init__(self, transposed):
        super().__init__()
        self.layers = torch.nn.ModuleList(Block(transposed) for _ in range(2))

    def forward(self, x):
        for block in self.layers:
            x = x + block.out(block.query(x))
        return x


CASES = {
    "patterns": dict(r=4, lora_alpha=6, rank_pattern={"layers.0.out": 2}, alpha_pattern={"query": 12, "^layers.1.out": 5}),
    "rslora": dict(r=3, lora_alpha=7, use_rslora=True),
    "fan_in_fan_out": dict(r=2, lora_alpha=5, fan_in_fan_out=True),
}


def texts(tensors):
    """Shapes, and float32 numbers as base64."""
    raw = {name: base64.b64encode(t.float().contiguous().numpy().tobytes()).decode() for name, t in tensors.items()}
    return {name: {"shape": list(t.shape), "data": raw[name]} for name, t in tensors.items()}


def case(name, options):
    torch.manual_seed(len(name))
    model = Model(options.get("fan_in_fan_out", False))
    base = {key: value.clone() for key, value in model.state_dict().items()}
    tuned = get_peft_model(model, LoraConfig(target_modules=["query", "out"], **options))
    for key, value in tuned.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(value, std=0.3)
    with tempfile.TemporaryDirectory() as folder:
        tuned.save_pretrained(folder)
        adapter = load_file(Path(folder) / "adapter_model.safetensors")
        config = json.loads((Path(folder) / "adapter_config.json").read_text())
    merged = tuned.merge_and_unload().state_dict()
    weights = {key: value for key, value in merged.items() if key.endswith(".weight")}
    return {"config": config, "base": texts(base), "adapter": texts(adapter), "merged": texts(weights)}


cases = {name: case(name, options) for name, options in CASES.items()}
Path(sys.argv[1]).write_text(json.dumps(cases) + "\n")
