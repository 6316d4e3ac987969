#!/usr/bin/env bash
# Tests marked `gpu` and `python -m benchmarks --device cuda`, in at most eight minutes, on a machine whose python3 has
# torch, numpy, transformers and pytest. See docs/gpu.md.
#
#   benchmarks/gpu_check.sh [OUT [WHEELS]]
#
# OUT is the folder for what is found; WHEELS, one with the other packages, installed for this run alone.
# DEVICE=cpu shows at tiny sizes that the benchmark runs; LINES are its lines, PYTHON the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-build/gpu-check}" wheels="${2:-}" python="${PYTHON:-python3}" device="${DEVICE:-cuda}"
lines="${LINES:-ceilings,encode,step,layers,clip}"
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [ -n "$wheels" ]; then
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$PYTHONPATH:$site"
fi
failed=0
if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
    # the tests' conftest needs packages that are not on a bare machine
    timeout 210 "$python" -m pytest --noconftest -q -rs -m gpu tests/steer/kernels/test_gpu.py 2>&1 |
        tee "$out/tests.txt" || failed=1
    sizes=(--rounds 5)
else
    sizes=(--rounds 1 --quick)
fi
timeout $((470 - SECONDS)) "$python" -m benchmarks --device "$device" --lines "$lines" "${sizes[@]}" --out "$out" 2>&1 |
    tee "$out/benchmark.txt" || failed=1
echo "$SECONDS s; results are in $out"
exit "$failed"
