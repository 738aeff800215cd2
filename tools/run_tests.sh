#!/usr/bin/env bash
# Sets up the environment where that is not done yet, then runs lint and the tests.
#
#   bash tools/run_tests.sh [arguments of pytest, e.g. tests/test_versions.py -k torch]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_environment.sh
python=$(realpath -m -- "${MMDSYM_VENV:-.venv}")/bin/python

"$python" -m ruff check .
"$python" -m ruff format --check .
if [[ $# -gt 0 ]]; then
  exec "$python" -m pytest "$@"
fi
# Apart: a process that has loaded ONNX Runtime and OpenVINO has crashed in a later training.
failed=0
"$python" -m pytest tests/deployment || failed=1
"$python" -m pytest --ignore=tests/deployment || failed=1
exit "$failed"
