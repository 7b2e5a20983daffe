#!/usr/bin/env bash
# Tests and measures this checkout on a GPU machine without a package index, within nine minutes:
#   make gpu-bundle            (where there is an index; fills .gpu-bundle)
#   OUT=results benchmarks/gpu/run.sh
# The most important first; what was found lies in $OUT even if the time runs out.
# OPENVOCAB_GPU=cpu rehearses it (make gpu-rehearsal). PYTHON names the interpreter.
set -u
cd "$(dirname "$0")/../.."
OUT=$(realpath -m "${OUT:-gpu-results}")
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
exec > >(tee "$OUT/log.txt") 2>&1
begun=$SECONDS
left() { echo $((520 - (SECONDS - begun))); }

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
# a wheel that is newer than what the machine has comes first on the path
"$PYTHON" -m pip --disable-pip-version-check --quiet install --no-index --no-deps --no-compile \
  --no-cache-dir --target "$site" .gpu-bundle/*.whl || exit 1
export PYTHONPATH="$site:$PWD" PYTHONUNBUFFERED=1
"$PYTHON" - <<'END'
import platform, torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print("Python", platform.python_version(), "torch", torch.__version__, "on", name)
END

status=0
echo "== pytest -m gpu"
# half of the time at most: figures are wanted even where a test hangs
timeout $(($(left) / 2)) "$PYTHON" -m pytest -m gpu tests/models/test_gpu.py -v -p no:cacheprovider \
  --junitxml="$OUT/tests.xml" || status=1
echo "== python -m benchmarks.gpu"
timeout "$(left)" "$PYTHON" -m benchmarks.gpu --out "$OUT/gpu.json" || status=1
echo "== $((SECONDS - begun)) seconds, status $status"
exit $status
