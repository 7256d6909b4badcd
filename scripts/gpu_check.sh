#!/usr/bin/env bash
# What only a GPU can show, in at most eight minutes, as one table (gpu-check/table.md).
#
#   scripts/gpu_check.sh [FOLDER]          # results and logs go to FOLDER; gpu-check by default
#   ONLY="kernel sft" scripts/gpu_check.sh # only these checks
#
# Needs a Python (PYTHON, python3 by default) with torch for CUDA, Tunewise's extra `local`, trl, and
# bitsandbytes and liger-kernel where they are to be measured. Where the machine has no network, put
# wheels into a folder (that of the tree too: pip wheel --no-deps .) and name it in WHEELS: they are
# unpacked into a temporary folder and used from there.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON="${PYTHON:-python3}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
out="$(mkdir -p "${1:-gpu-check}" && cd "${1:-gpu-check}" && pwd)"
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
if [ -n "${WHEELS:-}" ]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
fi
export PYTHONPATH="$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" benchmarks/gpu_check.py --out "$out" ${ONLY:+--only $ONLY}
