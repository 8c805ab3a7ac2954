"""Quantizes a tiny model of every class, loads it in transformers with Python's hqq, and compares: sweep.py OUTPUT.json [CLASS ...]

Each class is one process, so that none of them takes the others with it. scripts/sweep.mjs starts this and writes the page.
SWEEP_PROCESSES=2 run at once; with SWEEP_SECONDS no class is begun after so many, and the next run goes on from there.
SWEEP_TO=compressed-tensors is another format than that of Python's hqq, for transformers 5.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"  # some classes would fetch weights of their backbones
os.environ["TQDM_DISABLE"] = "1"

import torch
import transformers
from safetensors.torch import load_file
from torch import nn

import build
import formats
import tiny

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 240  # for one class
RUNS = [("float32", 8), ("float32", 4), ("bfloat16", 8), ("bfloat16", 4)]
QUICK = [("float32", 4), ("bfloat16", 8)]  # with SWEEP_RUNS=quick
FORMAT = os.environ.get("SWEEP_TO", "hqq")
EXPERT = re.compile(r"\.experts\.\d+\.")
LARGEST_DIFFERENCE = 2e-3  # of results, relative to the largest of them: both models add in the same order, but not the same way


def sweep_class(name, queue, runs):
    try:
        queue.put(sweep(build.model_classes([name])[name] if isinstance(name, str) else name, runs))
    except Exception as error:
        queue.put({"state": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"})


def first_line(error):
    return (str(error).splitlines() or [""])[0][:300]


def sweep(cls, runs=RUNS):
    """What became of a class: its state, and how many of its layers are quantized."""
    model, inputs, reasons = tiny.model(cls)
    if model is None:
        return {"state": "not built", "reason": "; ".join(dict.fromkeys(reasons))}
    folder = tempfile.mkdtemp(prefix="hqq-sweep-")
    try:
        return run_all(cls, model, inputs, folder, runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_all(cls, model, inputs, folder, runs):
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    found = {"linear": len(linear), "forward": inputs is not None, "problems": []}
    for dtype in ("float32", "bfloat16"):
        path = f"{folder}/{dtype}"
        try:
            model.to(getattr(torch, dtype)).save_pretrained(path)
        except Exception as error:
            return {**found, "state": "not saved", "reason": first_line(error)}
    with contextlib.suppress(Exception):
        if inputs is None:
            found["reason"] = "computes nothing from plain inputs"
    original = load_info(cls, f"{folder}/float32")
    if isinstance(original, str):
        return {**found, "state": "not loaded", "reason": f"the float model itself: {original}"}
    modules = dict(original[0].named_modules())
    lacking = [k for k in original[1]["missing_keys"] if isinstance(modules.get(k.removesuffix(".weight")), nn.Linear)]
    if lacking:  # what is read again of its configuration has other sizes
        return {**found, "state": "not loaded", "reason": f"the float model itself: its file has no {lacking[0]}"}
    useless = sorted(k for k in original[1]["unexpected_keys"] if k.removesuffix(".weight") in linear)
    if useless:
        return {**found, "state": "not loaded", "reason": f"the float model itself: it does not read its {useless[0]}"}
    process = subprocess.Popen(["node", f"{HERE}/sweep.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for dtype, bits in runs:
            check(cls, found, folder, dtype, bits, process, linear, inputs, original)
            if found.get("state"):
                return found
    finally:
        process.stdin.close()
        process.wait()
    found["state"] = "wrong" if found["problems"] else "same" if "reason" not in found else "loaded"
    return found


def load_info(cls, path):
    """(model, its missing, unexpected and mismatched keys), or why it cannot be loaded."""
    try:
        model, info = cls.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    keys = {key: {str(v) for v in info[key]} for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    return model.eval(), keys


def check(cls, found, folder, dtype, bits, process, linear, inputs, original):
    form = formats.FORMATS[FORMAT]()
    label = f"{dtype} {bits} bits"
    out, dense = f"{folder}/{dtype}-{bits}", f"{folder}/{dtype}-{bits}-dense"
    task = {"input": f"{folder}/{dtype}", "output": out, "dense": dense, "options": {"nbits": bits, **form.options}}
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    if "error" in answer:
        found.update(state="refused", reason=answer["error"].replace(folder, ""))
        return
    tensors = sorted(answer["tensors"])
    found["notes"] = [note.replace(folder, "") for note in answer["notes"]]
    found["quantized"] = len(tensors)
    found["dense"] = {d["name"]: d["reason"] for d in answer["dense"] if "not a matrix" not in d["reason"]}
    loaded = load_info(cls, out)
    problem = lambda text: found["problems"].append(f"{label}: {text}")
    told = any("will not load" in note for note in answer["notes"])
    if isinstance(loaded, str):
        if told:
            found.update(state="told", reason=next(n for n in found["notes"] if "will not load" in n))
        else:
            problem(loaded)
        return
    model, keys = loaded
    if told:
        found.update(state="told", reason=next(n for n in found["notes"] if "will not load" in n))
        return
    for key, names in keys.items():
        more = names - original[1][key]
        if more:
            problem(f"{key}: {sorted(more)[:3]} of {len(more)}")
    modules = dict(model.named_modules(remove_duplicate=False))
    plains = {
        n: m.weight.to(getattr(torch, dtype)).float()
        for n, m in original[0].named_modules(remove_duplicate=False)
        if isinstance(m, nn.Linear) and f"{n}.weight" not in original[1]["missing_keys"]  # else it has other numbers each time
    }
    quantized = {n for n, m in modules.items() if form.is_layer(m, plains.get(n))}
    # transformers 5 puts experts into a parameter, whose numbers are compared with all others below.
    whole = [t for t in tensors if not EXPERT.search(t) or t.removesuffix(".weight") in modules]
    if len({id(modules[n]) for n in quantized}) != len(whole) and len(quantized) != len(whole):
        problem(f"{len(whole)} quantized, {len(quantized)} loaded as such")
    stays = {n for n in linear if n not in quantized}
    said = {name.removesuffix(".weight") for name in found["dense"]}
    skip = form.skipped(json.load(open(f"{out}/config.json"))["quantization_config"])
    skip = {*skip, *(n for n in stays for s in skip if s.startswith("re:") and re.match(s[3:], n))}
    silent = sorted(n for n in stays if n not in said and n not in skip and not any(n.endswith(s) or s.endswith(n) for s in said))
    if silent:
        problem(f"linear layers that nothing is said of: {silent[:4]} of {len(silent)}")
    left = [n for n, p in model.named_parameters() if p.is_meta]
    if left:
        problem(f"left without numbers: {left[:3]} of {len(left)}")
        return
    found["share"] = round(answer["weights"] / sum(p.numel() for p in original[0].parameters()), 4)
    plain = load_info(cls, dense)
    if isinstance(plain, str):
        problem(f"the dequantized folder: {plain}")
        return
    if plain[1]["missing_keys"] - original[1]["missing_keys"]:  # the float class has experts in stacks alone: nothing to compute with
        found["reason"], inputs = "the float class reads no experts one by one: weights are compared, results are not", None
    form.ready(model)
    compare(found, problem, model, plain[0], {name: form.weight(modules[name]) for name in quantized}, inputs, tensors_of(dense))


def tensors_of(folder):
    """Names and tensors of a folder's files."""
    return {name: tensor for path in pathlib.Path(folder).glob("*.safetensors") for name, tensor in load_file(path).items()}


def compare(found, problem, model, plain, quantized, inputs, files):
    expected = dict(plain.named_modules(remove_duplicate=False))
    for name in quantized:
        # Experts that have no modules of their own in the float model (Llama 4) are held against the file.
        if not same_or_rounded(quantized[name], expected[name].weight if name in expected else files[f"{name}.weight"]):
            problem(f"{name} is not what its codes stand for")
            return
    others = dict(plain.named_parameters(remove_duplicate=False))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name not in others or parameter.shape != others[name].shape:
            continue
        if not (same_or_rounded(parameter, others[name]) if "experts" in name else close(parameter, others[name], 1e-2)):
            problem(f"{name} differs")
            return
    if inputs is None:
        return
    try:
        ours, theirs = tiny.compute(model, inputs), tiny.compute(plain, inputs)
    except Exception as error:
        problem(f"computing: {type(error).__name__}: {first_line(error)}")
        return
    for a, b in zip(ours, theirs, strict=True):
        if a.shape == b.shape and not close(a, b, LARGEST_DIFFERENCE):
            found.setdefault("difference", relative(a, b))
            problem(f"results differ by {relative(a, b):.2g}")
            return


@torch.no_grad()
def same_or_rounded(loaded, plain):
    """Whether weights are ours; or ours rounded once to the type of scales, as what is unpacked on reading is: then `plain` becomes these."""
    if any(torch.equal(loaded.float(), plain.to(dtype).float()) for dtype in (torch.float32, torch.bfloat16, torch.float16)):
        plain.copy_(loaded)
        return True
    return close(loaded, plain, 1e-3)


def relative(a, b):
    a, b = torch.nan_to_num(a.float(), posinf=0, neginf=0), torch.nan_to_num(b.float(), posinf=0, neginf=0)
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item() if b.numel() else 0.0


def close(a, b, tolerance):
    return a.shape == b.shape and relative(a.detach(), b.detach()) <= tolerance


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    output, names = sys.argv[1], sys.argv[2:]
    classes = build.model_classes(names)
    names = names or list(classes)
    results = json.load(open(output)) if os.path.exists(output) else {}
    formats.FORMATS[FORMAT]()  # imports once, before the processes fork
    for name in names:
        if name not in classes:
            results[name] = {"state": "not built", "reason": f"transformers {transformers.__version__} has no such class"}
    todo = [n for n in names if results.get(n, {"state": "open"})["state"] == "open"]  # open: to be tried again
    runs = QUICK if os.environ.get("SWEEP_RUNS") == "quick" else RUNS
    slots = int(os.environ.get("SWEEP_PROCESSES", "2"))
    context = multiprocessing.get_context("fork")
    running = {}
    ends = time.monotonic() + float(os.environ.get("SWEEP_SECONDS", "inf"))
    while todo or running:
        if time.monotonic() > ends:
            todo = []
        while todo and len(running) < slots:
            name = todo.pop(0)
            queue = context.SimpleQueue()
            process = context.Process(target=sweep_class, args=(classes[name], queue, runs), daemon=False)
            process.start()
            running[name] = (process, queue, time.monotonic())
        for name, (process, queue, started) in list(running.items()):
            if not queue.empty():
                results[name] = queue.get()
            elif process.is_alive() and time.monotonic() - started < SECONDS:
                continue
            else:
                results[name] = {"state": "failed", "reason": "out of time" if process.is_alive() else f"ended with {process.exitcode}"}
            process.kill()
            process.join()
            del running[name]
            print(name, results[name]["state"], *results[name].get("problems", [])[:1], results[name].get("reason", "")[:150], flush=True)
            with open(f"{output}.new", "w") as file:
                json.dump(results, file, indent=0)
            os.replace(f"{output}.new", output)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
