"""Starts the program on the libtorch of the torch that this Python has."""

import importlib.util
import os
import re
import sys

# The release whose C++ interface the program is built with.
TORCH = "2.11"
# The code of `docs/reference/exit-codes.md` for anything that is no fault of what was typed.
INTERNAL = 70


def main():
    package = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(package, "bin", "tastemaker")
    torch = torch_of_this_python()
    # The program looks beside its own package by itself.
    if os.path.realpath(torch) != os.path.realpath(os.path.join(os.path.dirname(package), "torch")):
        paths = [os.path.join(torch, "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    try:
        os.execv(program, ["tastemaker", *sys.argv[1:]])
    except OSError as error:
        refuse(f"{program} does not start: {error}")


def torch_of_this_python():
    """The folder of its torch, found without importing it, which takes seconds."""
    install = f"{sys.executable} -m pip install 'torch=={TORCH}.*'"
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        refuse(f"torch is not installed in the Python of {sys.prefix}; wanted torch {TORCH}: {install}")
    folder = next(iter(spec.submodule_search_locations))
    try:
        with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:
            found = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", file.read(), re.MULTILINE)
    except OSError:
        found = None
    version = found.group(1) if found else "of an unknown version"
    if not (version + ".").startswith(TORCH + "."):
        refuse(f"torch {version} is installed in {sys.prefix}; wanted torch {TORCH}: {install}")
    return folder


def refuse(why):
    print(f"error: {why}", file=sys.stderr)
    sys.exit(INTERNAL)


if __name__ == "__main__":
    main()
