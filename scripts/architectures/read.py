"""Reads what all model classes of the installed transformers hold, into a JSON file: read.py OUTPUT [KNOWN.json] [CLASS ...]

Of classes that KNOWN.json, which another version gave, has too only the default configuration is read.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"  # some classes would fetch weights of their backbones

import transformers

import build
import describe

SECONDS = 3  # of the processor, for the variants of one class
MOST_SECONDS = 40  # for a class
LAYERS = 8  # in which every kind of layer comes by
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)")


class OutOfTime(Exception):
    pass


def raise_out_of_time(*_):
    raise OutOfTime


def read_class(name):
    """What a class holds; of one that cannot be built, why not."""
    try:
        return read_variants(name)
    except Exception as error:
        return name, {"fails": first_line(error)}


def read_variants(name):
    cls = CLASSES[name]
    try:
        config = build.default_config(cls)
    except Exception as error:
        return name, {"fails": f"no default configuration: {first_line(error)}"}
    found = {"type": getattr(config, "model_type", "") or "", "prefix": cls.base_model_prefix or ""}
    if name in KNOWN:
        found["default"] = True  # its other configurations were not read
    found["tied"] = bool(getattr(text_part(config), "tie_word_embeddings", True))
    kinds, ties, untied, failures = {}, {}, [], []
    signal.signal(signal.SIGPROF, raise_out_of_time)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    parts = [part for path, part in build.parts_of(config) if path]  # some classes name the configuration of the whole
    tries = [lambda: build.shrunk(config, LAYERS), lambda: config, lambda: build.shrunk(config), lambda: build.completed(config)]
    tries += [lambda part=part: part for part in parts]
    started = time.process_time()
    built = 0
    try:
        for chosen in tries:
            try:
                chosen = chosen()
                model = build.build(cls, chosen)
            except OutOfTime:
                raise
            except Exception as error:
                failures.append(first_line(error))
                continue
            built += 1
            add_model(found, kinds, ties, untied, model)
            break
        for variant in variants(name, chosen) if built else ():
            if time.process_time() - started > SECONDS:
                found["cut"] = True
                break
            try:
                add_model(found, kinds, ties, untied, build.build(cls, variant))
            except OutOfTime:
                raise
            except Exception:
                continue  # not every setting can be changed alone
    except OutOfTime:
        found["cut"] = True
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if built == 0:
        return name, {**found, "fails": failures[0] if failures else "out of time"}
    found["kinds"] = starred({key: merged(value) for key, value in kinds.items()})
    # With whether it is tied whatever the configuration says.
    found["ties"] = {
        NUMBER.sub("*", key): [NUMBER.sub("*", source), all(key in own for own in untied)] for key, source in ties.items()
    }
    return name, found


def variants(name, config):
    """Of the bare model of a type every variant, for it is a part of the others; of these those that tie."""
    if name in KNOWN:
        return
    with contextlib.suppress(Exception):  # some configurations have settings layer by layer, and refuse to be copied
        config = build.shrunk(config)
    for label, variant in build.variants(config):
        if name in BARE or label.endswith("tie_word_embeddings"):
            yield variant


def text_part(config):
    try:
        return config.get_text_config(decoder=True)
    except Exception:
        return config


def first_line(error):
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


def add_model(found, kinds, ties, untied, model):
    for key, kind in file_kinds(model).items():
        kinds.setdefault(key, set()).add(kind)
    own = describe.ties_of(model)
    if getattr(text_part(model.config), "tie_word_embeddings", True) is False:
        untied.append(own)
    for key, source in own.items():
        ties.setdefault(key, source)
    found.setdefault("parts", describe.parts_by_config(model))
    found.setdefault("renames", renames_of(model))


def renames_of(model):
    """Of transformers 4: what turns the names of a file into those of modules."""
    mapping = getattr(model, "_checkpoint_conversion_mapping", None)
    return list(mapping.items()) if isinstance(mapping, dict) else []


def file_kinds(model):
    """`kinds_of`, by the names that transformers 5 gives the tensors in a file."""
    kinds = describe.kinds_of(model)
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return kinds
    tensors = model.state_dict(keep_vars=True)
    origin = {}
    for name, tensor in tensors.items():
        module = name[: -len(".weight")] if name.endswith(".weight") else name
        if module in kinds:
            origin[id(tensor)] = kinds[module]
    try:
        stored = revert_weight_conversion(model, dict(tensors))
    except Exception:
        return kinds
    for name, tensor in stored.items():
        if name in tensors or tensor.dim() not in (2, 3):
            continue
        key = name[: -len(".weight")] if name.endswith(".weight") else name
        if id(tensor) in origin:
            kinds[key] = origin[id(tensor)]
        elif tensor.dim() == 2 and "expert" in name:
            kinds[key] = "L"
    return kinds


def merged(kinds):
    """One kind of those that a module has in different configurations."""
    if len(kinds) > 1 and kinds <= set("LFIJRH"):  # a linear layer in all of them: what keeps it from being quantized in one counts
        in_float, asked = kinds & set("FJ"), kinds & set("IJ")
        return "H" if "H" in kinds else "R" if "R" in kinds else ("J" if asked else "F") if in_float else "I"
    return kinds.pop() if len(kinds) == 1 else "?"


def starred(kinds):
    """Patterns of names, `*` for any number, that tell the kinds apart."""
    groups = {}
    for name, kind in kinds.items():
        groups.setdefault(NUMBER.sub("*", name), {})[name] = kind
    patterns = {}
    for pattern, members in groups.items():
        if len(set(members.values())) == 1:
            patterns[pattern] = next(iter(members.values()))
            continue
        for name, kind in members.items():  # the last number tells, else all of them
            patterns.setdefault(last_kept(name), set()).add(kind)
    for pattern in [p for p, kind in patterns.items() if isinstance(kind, set)]:
        own = patterns.pop(pattern)
        if len(own) == 1:
            patterns[pattern] = own.pop()
        else:
            patterns.update({n: k for n, k in kinds.items() if last_kept(n) == pattern})
    return patterns


def last_kept(name):
    numbers = list(NUMBER.finditer(name))
    at = numbers[-1].start()
    return NUMBER.sub("*", name[:at]) + name[at:]


def main():
    global CLASSES, KNOWN, BARE
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    output, *others = sys.argv[1:]
    known = others.pop(0) if others and others[0].endswith(".json") else None
    CLASSES = build.model_classes(others)
    roles = build.roles()
    BARE = {bare for bare, _ in roles.values()}
    BARE |= {n for n, cls in CLASSES.items() if getattr(cls.config_class, "model_type", "") not in roles}
    causal = {causal for _, causal in roles.values()}
    KNOWN = set(json.load(open(known))["classes"]) if known else set()
    # The most wanted first: what is there can be packed before all is read.
    names = others or sorted(CLASSES, key=lambda name: (name not in causal, name not in BARE))
    read = {}
    if os.path.exists(output):  # goes on where it was ended; classes that are named are read anew
        read = json.load(open(output))["classes"]
        names = others or [name for name in names if name not in read]
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=200) as pool:
        for index, (name, found) in enumerate(pool.imap_unordered(read_class, names, chunksize=4)):
            read[name] = found
            if index % 50 == 49 or index + 1 == len(names):
                print(f"{index + 1} of {len(names)}", flush=True)
                text = json.dumps({"transformers": transformers.__version__, "roles": roles, "classes": dict(sorted(read.items()))})
                with open(output, "w") as file:
                    file.write(text)
    print(f"{len(read)} classes, {sum('fails' in found for found in read.values())} of them cannot be built")


if __name__ == "__main__":
    main()
