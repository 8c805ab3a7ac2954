"""Says what another version of transformers changes of what read.py reads: diff.py OLD.json NEW.json [--all]

First what changes the choice of layers: matrices that are linear no more, or only now, of another kind, or tied otherwise. Changes that
many classes share are one line. Exits with 1 where anything differs. Of classes of which NEW.json has the default configuration alone
(read.py with KNOWN.json) what it lacks is no change: other configurations may have it.
"""

import json
import sys

NAMED = 3  # classes in a line, unless --all
KINDS = {
    "L": "linear", "F": "linear in float32", "R": "linear, read past it", "H": "head", "T": "Conv1D", "E": "embedding",
    "X": "experts [in, out]", "Y": "experts [out, in]", "P": "other", "?": "by its configuration", None: "not there",
}  # fmt: skip
# What is said of a class, the most important first.
RANKS = ["another kind", "tied otherwise", "gone", "new in a class", "new", "buildable", "described otherwise"]
LAYERS = set("LFRHT")


def main():
    arguments = [a for a in sys.argv[1:] if a != "--all"]
    old, new = (json.load(open(path)) for path in arguments)
    print(f"transformers {old['transformers']} -> {new['transformers']}")
    before, after = old["classes"], new["classes"]
    shared = {}
    for name in sorted({*before, *after}):
        for rank, text in changes(before.get(name), after.get(name)):
            shared.setdefault((RANKS.index(rank), text), []).append(name)
    for (rank, text), names in sorted(shared.items(), key=lambda row: (row[0][0], -len(row[1]), row[0][1])):
        few = names if "--all" in sys.argv else names[:NAMED]
        more = f" and {len(names) - len(few)} more" if len(names) > len(few) else ""
        print(f"{RANKS[rank]}: {text}: {', '.join(few)}{more}")
    differ = {name for names in shared.values() for name in names}
    moved = {name for (rank, _), names in shared.items() if rank < 2 for name in names}
    print(f"{len(differ)} of {len({*before, *after})} classes differ, {len(moved)} of them in what is a layer or tied")
    return 1 if differ else 0


def changes(old, new):
    """Of a class: (rank, what)."""
    if old is None or new is None:
        yield ("new", "the class is new") if old is None else ("gone", "the class is gone")
        return
    if ("kinds" in old) != ("kinds" in new):
        yield "buildable", "cannot be built any more" if "kinds" in old else "can be built now"
        return
    left, right = old.get("kinds", {}), new.get("kinds", {})
    for key in sorted({*left, *right}):
        a, b = left.get(key), right.get(key)
        if a == b or (b is None and new.get("default")):
            continue
        word = f"{key.rpartition('.')[2] if a and b else key}: {KINDS[a]} -> {KINDS[b]}"
        if a and b:
            yield "another kind" if {a, b} & LAYERS else "described otherwise", word
        elif {a, b} & LAYERS:
            yield "gone" if b is None else "new in a class", word
    left, right = old.get("ties", {}), new.get("ties", {})
    for key in sorted({*left, *right}):
        if left.get(key) != right.get(key) and not (key not in right and new.get("default")):
            yield "tied otherwise", f"{key}: {tie(left.get(key))} -> {tie(right.get(key))}"
    for part in ("prefix", "tied", "parts", "renames"):
        if old.get(part) != new.get(part):
            yield "tied otherwise" if part == "tied" else "described otherwise", f"{part}: {old.get(part)} -> {new.get(part)}"[:200]


def tie(value):
    return "its own" if value is None else f"{value[0]}{' always' if value[1] else ''}"


if __name__ == "__main__":
    sys.exit(main())
