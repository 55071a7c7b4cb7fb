#!/usr/bin/env bash
# Installs a wheel as a user would, with neither compiler nor Rust to be found, and runs the demo to its report.
#
#   packaging/try-wheel.sh WHEEL [PYTHON]
#
# torch is installed without NVIDIA's libraries, which no run on a CPU needs. Seconds of each part are printed. Everything lies in a
# temporary folder that is removed.
set -euo pipefail
wheel=$(realpath "$1")
python=$(command -v "${2:-python3}")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

# A path with what a program cannot do without; a compiler is not among it.
mkdir "$place/bin" "$place/home"
for tool in sh env uname ls rm; do ln -s "$(command -v "$tool")" "$place/bin/$tool"; done
alone() { env -i PATH="$place/env/bin:$place/bin" HOME="$place/home" LANG=C.UTF-8 "$@"; }
for tool in cargo rustc cc gcc g++ clang; do
  if alone sh -c "command -v $tool" >/dev/null; then echo "$tool is on the path" >&2; exit 1; fi
done

began=$SECONDS
part() {
  echo "$1: $((SECONDS - began)) s"
  began=$SECONDS
}
"$python" -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet --no-input --no-deps 'torch==2.11.*'
part "torch"
# It asks for the torch that is there, so that the index is not asked for NVIDIA's libraries.
"$place/env/bin/python" -m pip install --quiet --no-input --no-deps "$wheel"
part "install"
alone tastemaker --version
alone python -m tastemaker --version
alone tastemaker doctor >"$place/doctor"
grep -i libtorch "$place/doctor"
part "start"
alone tastemaker demo --out "$place/demo"
part "demo"
test -s "$place/demo/report.html" || { ls "$place/demo" >&2; exit 1; }

# Another torch is refused with what to type.
sed -i "s/^__version__ = .*/__version__ = '2.10.0'/" "$place"/env/lib/python3*/site-packages/torch/version.py
if said=$(alone tastemaker --version 2>&1); then echo "torch 2.10 was not refused: $said" >&2; exit 1; fi
case $said in *"torch 2.10.0 is installed"*"pip install"*) ;; *) echo "$said" >&2 && exit 1 ;; esac
echo "passed"
