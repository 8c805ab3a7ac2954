"""What transformers computes for the models of families.mjs: expected.py FOLDER IDS prints, as JSON, by the name of each folder below
FOLDER, the likeliest token after every one of IDS and its probability."""

import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM


def main(folder, ids):
    expected = {}
    for name in sorted(os.listdir(folder)):
        model = AutoModelForCausalLM.from_pretrained(os.path.join(folder, name), dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            probabilities = torch.softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
        top = probabilities.max(dim=-1)
        expected[name] = [[int(i), round(float(p), 6)] for i, p in zip(top.indices, top.values)]
    print(json.dumps(expected))


main(sys.argv[1], json.loads(sys.argv[2]))
