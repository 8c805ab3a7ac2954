"""Loads folders that hqq wrote in transformers and holds them against what hqq says they are.

    check_folder.py QUANTIZED DEQUANTIZED [--dtype float32] [--within 0] ...

QUANTIZED is the folder that `hqq quantize --to` wrote, DEQUANTIZED what `hqq dequantize` makes of it, in float32. Of each pair: no key
is missing, unexpected or of another shape; every quantized layer, given the identity, computes our weights, within so much of the largest one;
logits of both folders are equal, within a thousand times that. The last line is "N passed, N failed".
"""

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import AutoModelForCausalLM

transformers.logging.set_verbosity_error()


def load(folder, dtype):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    faults = [f"{kind}: {sorted(map(str, info[kind]))[:4]}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[kind]]
    return model.eval(), faults


@torch.no_grad()
def weight_of(module, inputs, dtype):
    """What a linear layer computes of the identity, without its bias: its weights, transposed."""
    eye = torch.eye(inputs, dtype=dtype)
    out = module(eye)
    bias = getattr(module, "bias", None)
    return (out - bias if bias is not None else out).T


@torch.no_grad()
def check(quantized, dequantized, dtype, within):
    faults = []
    model, wrong = load(quantized, dtype)
    faults += wrong
    twin, wrong = load(dequantized, dtype)
    faults += [f"the dequantized folder: {fault}" for fault in wrong]
    logits_of = lambda one: one(torch.arange(1, 33).reshape(2, 16) % one.config.vocab_size).logits.float()
    ours, theirs = logits_of(model), logits_of(twin)
    tokens = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=20, min_new_tokens=20, do_sample=False)
    modules = dict(model.named_modules())
    layers, exact, worst = 0, 0, 0.0
    for name, plain in twin.named_modules():
        if not isinstance(plain, torch.nn.Linear):
            continue
        if getattr(plain, "bias", None) is not None:  # a sum rounds: without it, weights are what is compared
            plain.bias.data.zero_()
            if getattr(modules[name], "bias", None) is not None:
                modules[name].bias.data.zero_()
    for name, plain in twin.named_modules():
        if not isinstance(plain, torch.nn.Linear):
            continue
        if type(plain) is not torch.nn.Linear:  # a router, which gives more than one tensor
            continue
        got = weight_of(modules[name], plain.weight.shape[1], dtype).float()
        want = plain.weight.float()
        layers += 1
        exact += int(torch.equal(got, want))
        worst = max(worst, ((got - want).abs().max() / want.abs().max()).item())
    if not worst <= within:
        faults.append(f"weights differ by {worst:.3g} of the largest, {exact} of {layers} layers are equal")
    apart = (ours - theirs).abs().max().item()
    if not apart <= 1000 * within * theirs.abs().max().item():
        faults.append(f"logits differ by {apart:.3g}, of {theirs.abs().max():.3g}")
    if tokens.shape[1] != 23:
        faults.append(f"{tokens.shape[1] - 3} tokens were generated, not 20")
    return faults, f"{exact} of {layers} layers are equal, logits differ by {apart:.3g}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", help="QUANTIZED DEQUANTIZED, any number of pairs")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--within", type=float, default=0.0)
    options = parser.parse_args()
    failed = 0
    pairs = list(zip(options.folders[::2], options.folders[1::2]))
    for quantized, dequantized in pairs:
        try:
            faults, said = check(quantized, dequantized, getattr(torch, options.dtype), options.within)
        except Exception as error:  # whatever a loader throws is a finding
            faults, said = [f"{type(error).__name__}: {str(error)[:300]}"], ""
        failed += bool(faults)
        print(f"{'FAILED' if faults else 'ok'}  {os.path.basename(quantized)}: {'; '.join(faults) or said}", flush=True)
    print(f"{len(pairs) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
