"""Loads folders that hqq has quantized in transformers with Python's hqq: JSON lines in, `{"class", "float", "quantized"}`, and out.

What comes out of each is `problems`: keys that are missing, unexpected or mismatched in it and not in the float folder, weights that
are left without numbers; and how many modules are HQQLinear.
"""

import json
import logging
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import build
import sweep


def problems_of(cls, plain, quantized):
    original = sweep.load_info(cls, plain)
    if isinstance(original, str):
        return [f"the float model itself: {original}"], 0
    loaded = sweep.load_info(cls, quantized)
    if isinstance(loaded, str):
        return [loaded], 0
    model, keys = loaded
    more = {key: sorted(names - original[1][key]) for key, names in keys.items()}
    problems = [f"{key}: {names[:3]} of {len(names)}" for key, names in more.items() if names]
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        problems.append(f"left without numbers: {empty[:3]} of {len(empty)}")
    return problems, len({id(module) for module in model.modules() if type(module).__name__ == "HQQLinear"})


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    out, sys.stdout = sys.stdout, sys.stderr  # transformers prints at import
    tasks = [json.loads(line) for line in sys.stdin]
    classes = build.model_classes([task["class"] for task in tasks])
    for task in tasks:
        problems, layers = problems_of(classes[task["class"]], task["float"], task["quantized"])
        print(json.dumps({"class": task["class"], "problems": problems, "layers": layers}), file=out, flush=True)


if __name__ == "__main__":
    main()
