#!/usr/bin/env bash
# Checks and measures tastemaker on an NVIDIA device, beside PyTorch: at most ten minutes, one JSON line for each result.
#
#   benchmarks/gpu/run.sh DIR [--device cpu] [--smoke] [--no-peer]
#
# DIR is what `cargo xtask bench gpu --prepare DIR` made: `gpu`, our side, and `wheels`, packages of the peer. The machine needs the
# files of a checkout, and Python 3.12 with torch 2.11 and numpy (PYTHON names another than python3), and no network. Wheels of
# packages that it has can be left behind. Results go
# to DIR/results.jsonl, or to $OUT/results.jsonl where OUT is set. --no-peer measures our side alone.
set -u
cd "$(dirname "$0")/../.."
dir=$1
shift
out=${OUT:-$dir}/results.jsonl
alone=
arguments=()
for argument; do
  if [ "$argument" = --no-peer ]; then alone=1; else arguments+=("$argument"); fi
done
set -- ${arguments[@]+"${arguments[@]}"}
case " $* " in *" --smoke "*) smoke=1 ;; *) smoke= ;; esac
python=${PYTHON:-python3}
passed=0
failed=0
may_lack_time=

# libtorch is that of the Python on this machine, unless the one our side was built with is here.
torch=$("$python" -c 'import importlib.metadata as m; print(m.distribution("torch").locate_file("torch"))' 2>/dev/null)
[ -n "$torch" ] && export LD_LIBRARY_PATH="$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# section SECONDS NAME COMMAND...: a section that takes longer is stopped; what it had printed stays.
section() {
  local limit=$1 name=$2 rc
  shift 2
  local began=$SECONDS lines left=$((590 - SECONDS))
  if [ $left -lt 5 ] && [ -n "$may_lack_time" ]; then
    echo "{\"section\":\"$name\",\"name\":\"no time left for a second round\"}" >>"$out"
    return
  fi
  if [ $left -lt 5 ]; then
    failed=$((failed + 1))
    echo "{\"section\":\"$name\",\"name\":\"no time left\",\"passed\":false}" >>"$out"
    return
  fi
  [ "$limit" -gt $left ] && limit=$left
  lines=$(wc -l <"$out")
  timeout -k 5 "$limit" "$@" >>"$out" 2>"$out.errors"
  rc=$?
  local new
  new=$(tail -n +$((lines + 1)) "$out")
  passed=$((passed + $(grep -c '"passed":true' <<<"$new")))
  failed=$((failed + $(grep -c '"passed":false' <<<"$new")))
  if [ $rc -ne 0 ] && ! grep -q '"passed":false' <<<"$new"; then
    failed=$((failed + 1))
    "$python" - "$name" $rc "$out.errors" >>"$out" <<'END'
import json, sys
name, rc, errors = sys.argv[1:]
said = open(errors, errors="replace").read().strip()[-600:]
print(json.dumps({"section": name, "name": "ended", "exit_code": int(rc), "said": said, "passed": False}))
END
  fi
  echo "{\"section\":\"$name\",\"name\":\"time\",\"seconds\":$((SECONDS - began)),\"limit\":$limit,\"exit_code\":$rc}" >>"$out"
  echo "$name: $((SECONDS - began)) s, exit code $rc"
}

: >"$out"
ours=("$dir/gpu")
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
for wheel in "$dir"/wheels/*.whl; do
  [ -e "$wheel" ] && "$python" -m zipfile -e "$wheel" "$packages"
done
# Parity is that of f32: cuDNN's convolutions would round to TF32.
for name in device:40 operators:60 goldens:60 logits:60 steps:60 resume:40 nccl:40; do
  NVIDIA_TF32_OVERRIDE=0 section "${name#*:}" "${name%:*}" "${ours[@]}" "${name%:*}" "$@"
done

peer() {
  [ -n "$alone" ] && return
  PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}" section "$1" "peer:$2" "$python" benchmarks/gpu/peer.py "$2" "${@:3}"
}
ours() { section "$1" "speed:$2" "${ours[@]}" "speed:$2" "${@:3}"; }
# Sides take turns: every case once, ours first; then, as far as the time goes, once more with the peer first, so that what drifts
# meanwhile falls on both.
cases=(sd15-lora-1:30 sdxl-lora:45 sdxl-full:60 sd15-lora-16:35 sd15-full:35 sd15-full-8bit:35)
for case in "${cases[@]}"; do
  ours "${case#*:}" "${case%:*}" "$@"
  peer "${case#*:}" "${case%:*}" "$@"
done
if [ -z "$smoke" ]; then
  may_lack_time=1
  peer 90 sd15-lora-1 --compile "$@"
  for case in "${cases[@]}"; do
    peer "${case#*:}" "${case%:*}" "$@"
    ours "${case#*:}" "${case%:*}" "$@"
  done
fi
echo "{\"passed\":$passed,\"failed\":$failed}" | tee -a "$out"
[ "$failed" -eq 0 ]
