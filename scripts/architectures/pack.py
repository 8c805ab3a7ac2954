"""Packs what read.py has read into lib/models/select/architecture-data.ts: pack.py FILE_OF_4 FILE_OF_5 OUTPUT"""

import base64
import json
import sys

import brotli

PARTS = 4  # of nodes, and of classes: a model asks for one or two


def main():
    old, new = (json.load(open(path)) for path in sys.argv[1:3])
    roles = {**new["roles"], **old["roles"]}
    table = Table(merge(old, new, roles))
    rows = table.rows()
    types = [f"{kind}\t{bare}\t{causal}" for kind, (bare, causal) in sorted(roles.items())]
    nodes = cut(list(table.lines))
    classes = [(part[0].partition("\t")[0], packed(part)) for part in cut(rows)]
    with open(sys.argv[3], "w") as file:
        file.write(
            f"// Made by scripts/architectures/pack.py from transformers {old['transformers']} and {new['transformers']}; table.ts says how it is laid out.\n\n"
            "/** Lines that each part of the nodes has, but the last. */\n"
            f"export const NODES_OF_PART = {len(nodes[0])};\n\n"
            "/** What modules have below them. */\n"
            f"export const NODES: readonly string[] = [\n{''.join(f'  {packed(part)},' + chr(10) for part in nodes)}];\n\n"
            "/** Model classes, each part with the name of its first. */\n"
            "export const CLASSES: readonly (readonly [first: string, packed: string])[] = [\n"
            f"{''.join(f'  [{chr(10)}    {chr(39)}{first}{chr(39)},{chr(10)}    {text},{chr(10)}  ],{chr(10)}' for first, text in classes)}];\n\n"
            f"/** Model types. */\nexport const TYPES =\n  {packed(types)};\n"
        )
    print(f"{len(rows)} classes, {len(table.lines)} nodes")


def cut(lines):
    """The parts of lines, all but the last equally long."""
    size = -(-len(lines) // PARTS)
    return [lines[at : at + size] for at in range(0, len(lines), size)]


def packed(lines):
    """Lines as a literal: compressed with brotli, in base64."""
    text = "\n".join(lines).encode("ascii")
    return f"'{base64.b64encode(brotli.compress(text, quality=11, lgwin=18)).decode()}'"


def merge(old, new, roles):
    """Classes of both: what those of transformers 4 hold, and what else files of transformers 5 have."""
    classes = {}
    for name in sorted({*old["classes"], *new["classes"]}):
        found = [v["classes"][name] for v in (old, new) if "kinds" in v["classes"].get(name, {})]
        if not found:
            continue
        first = dict(found[0])
        first["versions"] = "".join(d for d, v in (("4", old), ("5", new)) if "kinds" in v["classes"].get(name, {}))
        for other in found[1:]:
            sure = {path: kind for path, kind in other["kinds"].items() if kind == "X" and first["kinds"].get(path) == "Y"}
            # Routers that one version has as plain layers, and the other not, are layers in neither: a file may be for both.
            past = {path: "R" for path, kind in other["kinds"].items() if kind in "PR" and first["kinds"].get(path) in ("L", "F")}
            first["kinds"] = {**other["kinds"], **first["kinds"], **sure, **past}  # stacks of square matrices do not show how they lie
            first["kinds"] |= asked(first["kinds"], other["kinds"])
        classes[name] = first
    for name, found in classes.items():
        # Every variant was read of the bare model; it is a part of the others.
        bare = classes.get(roles.get(found["type"], [""])[0])
        prefix = found["prefix"]
        if bare is None or bare is found or not prefix or not any(path.startswith(f"{prefix}.") for path in found["kinds"]):
            continue
        inner = {f"{prefix}.{path}": kind for path, kind in bare["kinds"].items()}
        found["kinds"] = {**inner, **found["kinds"], **asked(found["kinds"], inner)}
    return classes


def asked(kinds, others):
    """Layers whose weights transformers 5 reads as it loads, as others know: of transformers 4, nobody has looked."""
    found = {path for path, kind in others.items() if kind in "IJ"}
    for path in list(found):  # transformers 5 has fewer parts in some names: no `vision_model`
        words = path.split(".")
        for other in kinds:
            if kinds[other] in "LF" and other not in others and other.split(".")[-2:] == words[-2:] and is_within(words, other.split(".")):
                found.add(other)
    return {path: {"L": "I", "F": "J"}[kinds[path]] for path in found if kinds.get(path) in ("L", "F")}


def is_within(words, others):
    """Whether the words stand among others in their order."""
    rest = iter(others)
    return all(word in rest for word in words)


class Table:
    """Module trees, alike ones once."""

    def __init__(self, classes):
        self.classes = classes
        self.lines = {}
        self.roots = {}

    def root(self, name):
        if name not in self.roots:
            self.roots[name] = None  # a class within itself is not looked up again
            found = self.classes[name]
            tree = {}
            parts = {p: v for p, v in found.get("parts", {}).items() if v[1] in self.classes and self.root(v[1]) is not None}
            for path, kind in found["kinds"].items():
                if not any(path.startswith(f"{part}.") for part in parts):
                    edge = self.edge(tree, path)
                    edge["kind"] = kind
            for path, (attribute, cls) in parts.items():
                edge = self.edge(tree, path)
                edge["part"] = (attribute, cls)
            self.roots[name] = self.node(tree)
        return self.roots[name]

    def edge(self, tree, path):
        *parents, leaf = path.split(".")
        for name in parents:
            tree = tree.setdefault(name, {}).setdefault("tree", {})
        return tree.setdefault(leaf, {})

    def node(self, tree):
        words = []
        for name, edge in sorted(tree.items()):
            word = name + "=" + edge.get("kind", "")
            if "part" in edge:
                attribute, cls = edge["part"]
                word += f"@{attribute}:{cls}"
            elif "tree" in edge:
                word += str(self.node(edge["tree"]))
            words.append(word)
        line = " ".join(words) or "-"
        return self.lines.setdefault(line, len(self.lines))

    def rows(self):
        """A line of each class."""
        rows = []
        for name, found in self.classes.items():
            ties = ",".join(f"{t} {s}{'!' if always else ''}" for t, (s, always) in sorted(found.get("ties", {}).items()))
            renames = json.dumps(found["renames"]) if found.get("renames") else ""
            tied = "1" if found.get("tied") else "0"
            fields = [name, str(self.root(name)), found["versions"], found["type"], tied, found["prefix"], ties, renames]
            rows.append("\t".join(fields).rstrip("\t"))
        return rows


if __name__ == "__main__":
    main()
