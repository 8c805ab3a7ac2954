"""Puts stand-ins in place of the CUDA libraries that torch of PyPI is linked to, so that it loads without them, on a processor.

    without_cuda.py FOLDER     the folder `torch/lib` of an installed torch

A stand-in has every function that is asked of its library, by the versions of its names; each returns 100, which is CUDA's "no device". It takes a
C compiler and binutils.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

CUDA = re.compile(r"lib(cu|nv|nccl)")
LOOSE = re.compile(r"(cu|nv|nccl)[A-Z_a-z]")
CODE = 'mov $100, %eax\nret\n.section .note.GNU-stack,"",@progbits\n'


def text(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def asked(folder):
    """The libraries that are asked for, which versions of names each has, the names of each version, and names without one."""
    libraries, versions, names, loose = set(), collections.defaultdict(set), collections.defaultdict(set), set()
    for file in sorted(folder.glob("lib*.so")):
        libraries |= {name for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text("readelf", "-dW", file)) if CUDA.match(name)}
        of = ""
        for line in text("readelf", "-VW", file).splitlines():
            if found := re.search(r"File: (\S+)", line):
                of = found[1]
            elif found := re.search(r"Name: (\S+)", line):
                versions[of].add(found[1])
        for symbol in re.findall(r" U (\S+)", text("nm", "-D", "--undefined-only", file)):
            name, _, version = symbol.partition("@")
            if version:
                names[version].add(name)
            elif LOOSE.match(name):
                loose.add(name)
    return libraries, versions, names, loose


def main():
    folder = pathlib.Path(sys.argv[1])
    libraries, versions, names, loose = asked(folder)
    with tempfile.TemporaryDirectory() as place:
        code, script = pathlib.Path(place, "code.s"), pathlib.Path(place, "versions")
        for library in sorted(libraries):
            own = sorted(versions[library])
            # Names without a version are looked for everywhere.
            labels = set().union(loose if library.startswith("libcudart") else (), *(names[version] for version in own))
            code.write_text("".join(f".globl {name}\n{name}:\n" for name in sorted(labels)) + CODE)
            script.write_text("".join(f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names[version]))} }};\n" for version in own))
            scripts = [f"-Wl,--version-script={script}"] if own else []
            subprocess.run(["cc", "-shared", "-nostdlib", *scripts, f"-Wl,-soname,{library}", "-o", folder / library, code], check=True)
    print(f"{len(libraries)} CUDA libraries have stand-ins.")


main()
