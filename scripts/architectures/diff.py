"""Says what another version of transformers changes of what read.py reads: diff.py OLD.json NEW.json; exits with 1 for a change."""

import json
import sys


def main():
    old, new = (json.load(open(path)) for path in sys.argv[1:3])
    print(f"transformers {old['transformers']} -> {new['transformers']}")
    before, after = old["classes"], new["classes"]
    changed = 0
    for name in sorted({*before, *after}):
        lines = list(changes(before.get(name), after.get(name)))
        changed += bool(lines)
        for line in lines:
            print(f"{name}: {line}")
    print(f"{changed} of {len({*before, *after})} classes differ")
    return 1 if changed else 0


def changes(old, new):
    if old is None or new is None:
        yield "is new" if old is None else "is gone"
        return
    if ("kinds" in old) != ("kinds" in new):
        yield "cannot be built any more" if "kinds" in old else "can be built now"
        return
    for part in ("kinds", "ties"):
        left, right = old.get(part, {}), new.get(part, {})
        for key in sorted({*left, *right}):
            if left.get(key) != right.get(key):
                yield f"{part} {key}: {said(left.get(key))} -> {said(right.get(key))}"
    for part in ("prefix", "tied", "parts", "renames"):
        if old.get(part) != new.get(part):
            yield f"{part}: {said(old.get(part))} -> {said(new.get(part))}"


def said(value):
    return "nothing" if value is None else json.dumps(value) if not isinstance(value, str) else value


if __name__ == "__main__":
    sys.exit(main())
