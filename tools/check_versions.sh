#!/usr/bin/env bash
# Builds a clean environment for a set of versions and runs the tests in it.
#
#   bash tools/check_versions.sh NAME [arguments of pytest, e.g. tests/test_training.py]
#
# NAME is `pinned`, which is requirements/lock.txt as it stands, or one of requirements/versions/:
# `onedl` has the maintained forks of mmengine, mmcv and mmdet instead of those of the lock.
#
# Environment variables:
#   MMDSYM_CHECK_DIR   where environments and logs go (default: /tmp/mmdsym-versions)
#   MMDSYM_PYTHON      the Python that makes the environment (default: python3.11)
#   MMDSYM_TORCH_FROM  the Python of an environment whose torch and torchvision are linked instead
#                      of installed once more, which saves 6 GB; they must be those of the lock
#   MMDSYM_MMCV_WHEEL  a wheel of mmcv that is installed instead of compiling one
#   MMDSYM_MMCV_OPS    operators to compile, or `all` (default: those of the detectors in configs/)
#   MAX_JOBS           how many compilers run at once (default: one per core)
#
# The environment is kept and used again until a pin or one of these variables changes; an interrupted
# set-up goes on after what is done. Compiling yields to other programs. The exit status is
# that of pytest; docs/versions.md says what came out.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$repository"
lock=requirements/lock.txt
openmmlab='^(onedl-)?(mmengine|mmcv|mmdet|mmdetection)=='
torch_packages='^(torch|torchvision|triton|nvidia-[a-z0-9-]+)=='
ops=${MMDSYM_MMCV_OPS:-nms,roi_align,focal_loss,ms_deform_attn}

unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '[versions %s] %s\n' "$(date +%H:%M:%S)" "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

known_sets() { echo pinned && (cd requirements/versions && ls -- *.txt) | sed 's/\.txt$//'; }

read_name() {
  name=${1:-}
  local known
  known=$(known_sets | paste -sd ' ')
  [[ -n $name && " $known " == *" $name "* ]] ||
    fail "there is no set of versions '$name': known are $known."
  pins=$lock
  [[ $name == pinned ]] || pins=requirements/versions/$name.txt
  folder=$(realpath -m -- "${MMDSYM_CHECK_DIR:-/tmp/mmdsym-versions}")/$name
  python=$folder/venv/bin/python
}

# What the packages, and then mmcv, follow from. A virtual environment works only where it was made.
package_fingerprint() {
  { cat "$lock" "$pins" requirements/build.txt && echo "${MMDSYM_TORCH_FROM:-} $folder"; } |
    sha256sum | cut -d' ' -f1
}

mmcv_fingerprint() { echo "$(package_fingerprint) $ops ${MMDSYM_MMCV_WHEEL:-}"; }

holds() { [[ -f $1 && $(<"$1") == "$2" ]] && "$python" -c '' 2>/dev/null; }

# The lock is complete, so dependencies are not resolved again: nothing unpinned can come in.
install() { "$python" -m pip install -q --no-deps --no-build-isolation --retries 10 "$@"; }

make_venv() {
  local base=${MMDSYM_PYTHON:-python3.11}
  command -v "$base" >/dev/null || fail "$base was not found: name a Python with MMDSYM_PYTHON."
  say "Making $folder/venv."
  rm -rf "$folder/venv" "$folder/packages" "$folder/finished"
  mkdir -p "$folder"
  "$base" -m venv "$folder/venv"
  install -r requirements/build.txt
}

install_torch() {
  if [[ -z ${MMDSYM_TORCH_FROM:-} ]]; then
    say 'Installing torch (about 6 GB).'
    install -r <(grep -E "$torch_packages" "$lock")
    return
  fi
  say "Linking the torch of $MMDSYM_TORCH_FROM."
  local from to
  from=$(site_packages "$MMDSYM_TORCH_FROM") to=$(site_packages "$python")
  find "$from" -maxdepth 1 \( -name 'torch' -o -name 'torch-*' -o -name 'torchgen' \
    -o -name 'functorch' -o -name 'torchvision*' -o -name 'triton*' -o -name 'nvidia*' \) \
    -exec ln -sfn -t "$to" {} +
  "$python" - "$lock" <<'CHECK' || exit 2
import re
import sys
from importlib.metadata import version

for name in ('torch', 'torchvision'):
    wanted = re.search(rf'^{name}==(\S+)', open(sys.argv[1]).read(), re.M)[1]
    if version(name).split('+')[0] != wanted:
        sys.exit(f'error: MMDSYM_TORCH_FROM has {name} {version(name)} but the lock {wanted}: '
                 'name another environment, or leave it out.')
CHECK
}

site_packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

install_packages() {
  say 'Installing the other packages.'
  install -r <(grep -vE "$openmmlab|$torch_packages" "$lock")
  # mmcv is compiled afterwards.
  install -r <(grep -E "$openmmlab" "$pins" | grep -v 'mmcv==')
  [[ $pins == "$lock" ]] || install -r <(grep -vE "$openmmlab" "$pins")
}

install_mmcv() {
  local requirement
  requirement=$(grep -E "$openmmlab" "$pins" | grep -E 'mmcv==')
  if [[ -n ${MMDSYM_MMCV_WHEEL:-} ]]; then
    install --force-reinstall "$MMDSYM_MMCV_WHEEL"
  else
    compile_mmcv "$requirement"
    install --force-reinstall "$folder"/mmcv/*.whl
  fi
  "$python" -c 'import torch; from mmcv.ops import nms
nms(torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([0.9]), 0.5)' ||
    fail "the operators of $requirement do not load; the reason stands above."
}

compile_mmcv() {
  local source=$folder/mmcv/source log=$folder/mmcv/build.log
  rm -rf "$folder/mmcv"
  mkdir -p "$source"
  "$python" -m pip download -q --no-deps --no-build-isolation --no-cache-dir --no-binary :all: \
    -d "$folder/mmcv" "$1"
  tar -xzf "$folder"/mmcv/*.tar.gz -C "$source" --strip-components 1
  [[ $ops == all ]] || "$python" tools/restrict_mmcv_ops.py "$source" --ops "$ops"
  say "Compiling $1; the log is $log."
  # No GPU for the compiler to see: the tests run on the CPU.
  PATH=$folder/venv/bin:$PATH CUDA_VISIBLE_DEVICES='' MMCV_WITH_OPS=1 CFLAGS="-g0 -O2" \
    MAX_JOBS=${MAX_JOBS:-$(nproc)} nice -n 10 "$python" -m pip wheel -v --no-deps \
    --no-build-isolation --no-cache-dir -w "$folder/mmcv" "$source" >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    fail "$1 could not be compiled: the end of its log stands above, all of it in $log."
  }
}

show_versions() {
  "$python" - <<'VERSIONS'
import platform
from importlib import metadata

print('Python', platform.python_version())
for name in ('torch', 'mmengine', 'mmcv', 'mmdet'):
    for distribution in sorted(set(metadata.packages_distributions()[name])):
        print(f'{name}: {distribution} {metadata.version(distribution)}')
VERSIONS
}

main() {
  read_name "$@"
  shift
  if ! holds "$folder/packages" "$(package_fingerprint)"; then
    make_venv
    install_torch
    install_packages
    package_fingerprint >"$folder/packages"
  fi
  if ! holds "$folder/finished" "$(mmcv_fingerprint)"; then
    install_mmcv
    install -e .
    mmcv_fingerprint >"$folder/finished"
  fi
  show_versions
  say "Running the tests; what they say is kept in $folder/tests.log."
  run_tests "$@" 2>&1 | tee "$folder/tests.log"
}

run_tests() {
  if [[ $# -gt 0 ]]; then
    "$python" -m pytest "$@"
    return
  fi
  # As tools/run_tests.sh, and for its reason: ONNX Runtime and OpenVINO get a process of their own.
  local failed=0
  "$python" -m pytest tests/deployment || failed=1
  "$python" -m pytest --ignore=tests/deployment || failed=1
  return "$failed"
}

main "$@"
