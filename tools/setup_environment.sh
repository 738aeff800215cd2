#!/usr/bin/env bash
# Makes the virtual environment with everything that mmdsym needs on Linux, or finds it made.
#
#   bash tools/setup_environment.sh
#
# Environment variables:
#   MMDSYM_VENV    where the virtual environment is or shall be (default: .venv in the repository)
#   MMDSYM_PYTHON  the Python that makes it (default: python3.11, else a fitting python3)
#   MAX_JOBS       how many compilers run at once when mmcv is built (default: one per core)
#
# Safe to run twice, by two at once, and again after an interruption: what is done is kept. The
# environment is rebuilt when requirements/lock.txt or requirements/build.txt changes.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$repository"
venv=$(realpath -m -- "${MMDSYM_VENV:-.venv}")
python=$venv/bin/python
lock=requirements/lock.txt
started=$venv/.mmdsym-started    # the fingerprint the environment is being made for
finished=$venv/.mmdsym-finished  # the same fingerprint, once everything is in place
wheels=../shared/wheels          # optional: wheels built earlier, beside the repository

# Settings of the user's shell that would put packages elsewhere or take them from elsewhere.
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '[set-up %s] %s\n' "$(date +%H:%M:%S)" "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# --- what the environment is made for ---------------------------------------------------------

fingerprint() {
  # A virtual environment works only where it was made, so its place is part of it.
  { cat "$lock" requirements/build.txt && echo "$venv"; } | sha256sum | cut -d' ' -f1
}

pin() { grep -iE "^$1==" "$lock" | sed 's/^[^=]*==//; s/ .*//'; }

holds() { [[ -f $1 && $(<"$1") == "$(fingerprint)" ]]; }

is_finished() { holds "$finished" && "$python" -c '' 2>/dev/null; }

# --- the empty environment --------------------------------------------------------------------

find_python() {
  local candidate
  for candidate in ${MMDSYM_PYTHON:-python3.11 python3 python3.12}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 was found: install it, or name it with MMDSYM_PYTHON=/path/to/python3.11."
}

check_place() {
  if [[ -e $venv && ! -f $started && -n $(ls -A "$venv") ]]; then
    fail "$venv exists but was not made by this script: move it away, or name another place" \
      "with MMDSYM_VENV."
  fi
  local free
  mkdir -p "$(dirname "$venv")"
  free=$(df -Pk "$(dirname "$venv")" | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
  if [[ ! -f $started && $free -lt 9 ]]; then
    fail "$(dirname "$venv") has $free GB free but the set-up needs 9: make room, or name" \
      "another place with MMDSYM_VENV."
  fi
}

make_venv() {
  if [[ -f $started ]] && holds "$started" && "$python" -m pip --version >/dev/null 2>&1; then
    say "Going on where the last set-up stopped."
    "$python" tools/mend_packages.py
    return
  fi
  if [[ -f $started ]]; then
    say "$venv is of other pins, or was not completed: making it anew."
    rm -rf "$venv"
  fi
  local base
  base=$(find_python)
  say "Making a virtual environment with $("$base" -V) in $venv."
  # The mark comes first: an interrupted environment must be known as one of this script.
  mkdir -p "$venv"
  fingerprint >"$started"
  "$base" -m venv "$venv" ||
    fail "$base cannot make a virtual environment: install its venv package (on Debian and" \
      "Ubuntu python3.11-venv)."
}

# --- the packages -----------------------------------------------------------------------------

# The lock is complete, so dependencies are not resolved again: nothing unpinned can come in.
install() { "$python" -m pip install --no-deps --no-build-isolation --retries 10 "$@"; }

install_pins() { install "${@:2}" -r <(grep -E "$1" "$lock"); }

install_packages() {
  install -q -r requirements/build.txt
  say "Installing torch (about 3 minutes on a fast connection, about 6 GB on disk) ..."
  install_pins '^(torch|torchvision|triton|nvidia-[a-z0-9-]+)=='
  say "Installing the other packages (about 2 minutes) ..."
  install -q -r <(grep -vE '^(mmcv|torch|torchvision|triton|nvidia-[a-z0-9-]+)==' "$lock")
}

# --- mmcv, whose operators must be compiled for the torch beside it ---------------------------

# A wheel that was built beside another torch installs without complaint and fails on import.
mmcv_works() {
  "$python" - "$@" <<'PROOF' 2>/dev/null
import sys
import torch
from mmcv.ops import nms

for device in sys.argv[1:]:
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 9.0, 9.0]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    assert len(nms(boxes, scores, 0.5)[0]) == 1
PROOF
}

wanted_devices() {
  "$python" - 2>/dev/null <<'DEVICES'
import torch
from torch.utils.cpp_extension import CUDA_HOME

print('cpu cuda' if torch.cuda.is_available() and CUDA_HOME else 'cpu')
DEVICES
}

install_mmcv() {
  local devices
  devices=$(wanted_devices)
  # shellcheck disable=SC2086  # the devices are separate words
  if mmcv_works $devices; then return; fi
  local links=()
  if [[ -d $wheels ]]; then links=(--find-links "$wheels"); fi
  # Wheels only: the wheel that pip may have cached from an own build fits who knows which torch.
  if install -q --only-binary mmcv --force-reinstall "${links[@]}" "mmcv==$(pin mmcv)" \
    2>/dev/null && mmcv_works $devices; then
    say "mmcv was installed from a ready wheel."
    return
  fi
  build_mmcv "$devices"
  if ! mmcv_works $devices; then
    "$python" -c 'import mmcv.ops' || true
    fail "mmcv was built but its operators do not load (the reason stands above): remove" \
      "$repository/build and run the set-up again."
  fi
}

build_mmcv() {
  local devices=$1 folder log
  folder=$repository/build/mmcv-$(pin mmcv)-torch-$(pin torch)-${devices// /-}
  folder+=-$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
  log=$folder/build.log
  if ! compgen -G "$folder/*.whl" >/dev/null; then
    check_compiler
    mkdir -p "$folder"
    unpack_mmcv "$folder"
    say "Compiling mmcv's operators: 6 to 22 minutes on 2 cores; the log is $log."
    # The watcher must not hold the lock of the set-up, should it outlive it by a minute.
    watch_mmcv "$folder" 9>&- &
    local watcher=$!
    compile_mmcv "$devices" "$folder" >"$log" 2>&1 || {
      kill "$watcher"
      tail -n 30 "$log" >&2
      fail "mmcv could not be compiled: the end of its log stands above, all of it in $log."
    }
    kill "$watcher"
  fi
  install -q --force-reinstall "$folder"/*.whl
}

check_compiler() {
  command -v "${CXX:-g++}" >/dev/null ||
    fail "mmcv must be compiled but no C++ compiler was found: install g++ (on Debian and Ubuntu" \
      "the package build-essential) and run this again."
  "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    fail "mmcv must be compiled but Python's headers are missing: install them (on Debian and" \
      "Ubuntu the package python3.11-dev) and run this again."
}

unpack_mmcv() {
  local folder=$1
  if [[ -d $folder/source ]]; then return; fi
  # The archive comes from the package index like all else; its own setup.py needs torch to tell
  # its name, hence no build isolation here either.
  "$python" -m pip download -q --no-deps --no-build-isolation --no-cache-dir --no-binary mmcv \
    -d "$folder" "mmcv==$(pin mmcv)"
  rm -rf "$folder/unpacking"
  mkdir "$folder/unpacking"
  tar -xzf "$folder"/mmcv-*.tar.gz -C "$folder/unpacking" --strip-components 1
  mv "$folder/unpacking" "$folder/source"
}

# Compiled in its own source folder, where ninja finds what an interrupted build had done.
compile_mmcv() (
  devices=$1 folder=$2
  export MMCV_WITH_OPS=1 CFLAGS="-g0 -O2 ${CFLAGS:-}" MAX_JOBS=${MAX_JOBS:-$(nproc)}
  export PATH=$venv/bin:$PATH
  if [[ $devices == cpu ]]; then
    export CUDA_VISIBLE_DEVICES=''
  else
    export FORCE_CUDA=1
  fi
  "$python" -m pip wheel -v --no-deps --no-build-isolation --no-cache-dir -w "$folder/wheel" \
    "$folder/source" && mv "$folder"/wheel/*.whl "$folder"
)

watch_mmcv() {
  while sleep 60 && kill -0 $$; do
    say "... $(find "$1/source/build" -name '*.o' | wc -l) of about 76 files are compiled"
  done 2>/dev/null
}

# --- this package -----------------------------------------------------------------------------

# Its metadata are read when it is installed, so a change of them installs it again.
link_fingerprint() {
  { cat setup.py mmdsym/version.py requirements/{runtime,mminstall,deploy,tests,tiles}.txt && pwd; } |
    sha256sum | cut -d' ' -f1
}

link_package() {
  local stamp=$venv/.mmdsym-linked
  if [[ -f $stamp && $(<"$stamp") == "$(link_fingerprint)" ]]; then return; fi
  install -q -e .
  link_fingerprint >"$stamp"
}

check_gpu() {
  if "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' &&
    ! mmcv_works cuda; then
    say "Note: a GPU is here, but mmcv's operators work on the CPU alone, since no CUDA toolkit" \
      "(nvcc) was found; to train on the GPU, install the toolkit of torch's CUDA version, set" \
      "CUDA_HOME, remove $finished and run this again."
  fi
}

# --- the whole --------------------------------------------------------------------------------

main() {
  [[ -f $lock ]] || fail "$repository/$lock is missing: get the whole repository again."
  mkdir -p "$(dirname "$venv")"
  # The lock goes with the process that holds it, however that ends.
  exec 9>"$venv.lock"
  if ! flock -n 9; then
    say "Another set-up of $venv is running: waiting for it."
    flock 9
  fi
  if ! is_finished; then
    check_place
    make_venv
    rm -f "$finished"
    install_packages
    install_mmcv
    check_gpu
    fingerprint >"$finished.new"
    mv "$finished.new" "$finished"
    say "Everything is installed in $venv."
  fi
  link_package
}

main "$@"
