#!/usr/bin/env bash
# Installs mmdsym from a bundle of tools/make_offline_bundle.py, without internet, beside the torch
# that this machine has.
#
#   bash BUNDLE/install_offline.sh BUNDLE [options]
#
#   --python PYTHON     the Python whose torch and torchvision are used (default: python3)
#   --venv FOLDER       where the new virtual environment goes (default: mmdsym-venv)
#   --ops all|NAME,...  which of mmcv's operators are compiled (default: all, 6 to 22 minutes on
#                       2 cores, longer for a GPU); nms,roi_align,focal_loss suffice for ATSS,
#                       RetinaNet, FCOS, RTMDet and Faster R-CNN and take a few minutes;
#                       ms_deform_attn,nms are those of Deformable DETR and DINO
#   --mmcv-wheel FILE   a wheel of mmcv that was built for this Python and this torch: installed
#                       instead of compiling
#   --cpu               compiles for the CPU although torch sees a GPU
#
# The environment in which torch is stays as it is: the new one looks into it, and keeps its own
# packages to itself. Safe to run twice: what is done is kept.
set -euo pipefail

say() { printf '[offline install %s] %s\n' "$(date +%H:%M:%S)" "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

usage() { sed -n '2,/^set -e/p' "${BASH_SOURCE[0]}" | sed -e '/^set -e/d' -e 's/^# \{0,1\}//'; }

bundle='' python=python3 venv=mmdsym-venv ops=all mmcv_wheel='' devices=''

parse_arguments() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --cpu) devices=cpu && shift ;;
      --python | --venv | --ops | --mmcv-wheel)
        [[ $# -gt 1 ]] || fail "$1 needs a value: see --help."
        case $1 in
          --python) python=$2 ;;
          --venv) venv=$2 ;;
          --ops) ops=$2 ;;
          --mmcv-wheel) mmcv_wheel=$2 ;;
        esac
        shift 2
        ;;
      -*) fail "the option $1 is not known: see --help." ;;
      *)
        [[ -z $bundle ]] || fail "one bundle can be installed at a time, not $bundle and $1."
        bundle=$1 && shift
        ;;
    esac
  done
  [[ -n $bundle ]] || fail "name the folder of the bundle: see --help."
  [[ -f $bundle/manifest.sha256 ]] ||
    fail "$bundle is no bundle of make_offline_bundle.py (it has no manifest.sha256)."
  [[ -z $mmcv_wheel || -f $mmcv_wheel ]] || fail "$mmcv_wheel is not there: check --mmcv-wheel."
  bundle=$(cd "$bundle" && pwd -P)
  venv=$(realpath -m -- "$venv")
}

# --- what must hold before anything is written ------------------------------------------------

check_bundle() {
  local damaged
  damaged=$(cd "$bundle" && sha256sum --check --quiet --strict manifest.sha256 2>/dev/null |
    sed 's/: FAILED.*//' | paste -sd ' ') || true
  [[ -z $damaged ]] || fail "damaged or missing in $bundle: $damaged; copy the bundle again."
  local unknown
  unknown=$(cd "$bundle" && find wheels -type f | sort |
    comm -13 <(cut -c67- manifest.sha256 | sort) - | paste -sd ' ')
  [[ -z $unknown ]] || fail "not part of the bundle: $unknown; remove it from $bundle."
}

check_python() {
  command -v "$python" >/dev/null || fail "$python was not found: name a Python with --python."
  "$python" - "$bundle/bundle.json" <<'CHECK' || exit 2
import json
import re
import sys


def fail(message):
    sys.exit(f'error: {message}')


with open(sys.argv[1]) as file:
    wanted = json.load(file)['python']
found = '.'.join(map(str, sys.version_info[:2]))
if found != wanted:
    fail(f'{sys.executable} is Python {found} but the bundle is for {wanted}: name another Python '
         f'with --python, or make a bundle with --python {found}.')
try:
    import torch
except Exception as error:
    fail(f'{sys.executable} cannot import torch ({error}): name the Python that has it with '
         '--python.')
if tuple(map(int, re.findall(r'\d+', torch.__version__)[:2])) < (2, 1):
    fail(f'torch {torch.__version__} is too old: mmdsym needs torch 2.1 or newer.')
cure = f'install the torchvision that was released with torch {torch.__version__}.'
try:
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    torchvision.ops.nms(boxes, torch.ones(1), 0.5)
except ImportError as error:
    fail(f'{sys.executable} has no usable torchvision ({error}), which the bundle leaves out: '
         + cure)
except Exception as error:
    reason = str(error).strip().splitlines()[0]
    fail(f'torchvision {torchvision.__version__} does not fit torch {torch.__version__} '
         f'({reason}): {cure}')
CHECK
}

check_compiler() {
  if [[ -n $mmcv_wheel ]]; then return; fi
  command -v "${CXX:-g++}" >/dev/null ||
    fail "no C++ compiler was found: install g++, or give a ready mmcv with --mmcv-wheel."
  "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    fail "the headers of $python are missing: install its development package, or give a ready" \
      "mmcv with --mmcv-wheel."
  if [[ $devices == 'cpu cuda' ]]; then
    "$python" -c 'import sys, torch.utils.cpp_extension as e; sys.exit(e.CUDA_HOME is None)' ||
      fail "torch sees a GPU but no CUDA toolkit (nvcc) was found: install the one of torch's" \
        "CUDA version and set CUDA_HOME, or compile for the CPU alone with --cpu."
  fi
}

choose_devices() {
  if [[ -z $devices ]]; then
    devices=$("$python" -c 'import torch
print("cpu cuda" if torch.cuda.is_available() else "cpu")')
  fi
}

# --- the environment --------------------------------------------------------------------------

make_venv() {
  local started=$venv/.mmdsym-offline
  if [[ -e $venv && ! -f $started && -n $(ls -A "$venv") ]]; then
    fail "$venv exists but was not made by this script: move it away, or name another place with" \
      "--venv."
  fi
  if [[ ! -f $started ]] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "Making a virtual environment in $venv."
    rm -rf "$venv"
    # The mark comes first: an interrupted environment must be known as one of this script.
    mkdir -p "$venv"
    touch "$started"
    # Its pip comes from the bundle, so ensurepip, which some systems lack, is not needed.
    "$python" -m venv --without-pip "$venv"
  fi
}

torch_link() {
  "$venv/bin/python" -c 'import os, sysconfig
print(os.path.join(sysconfig.get_path("purelib"), "torch_of_this_machine.pth"))'
}

# Lets the new environment look into the folders in which torch is, after its own.
link_torch() {
  "$python" - "$(torch_link)" <<'LINK'
import os
import sys

import torch
import torchvision

folders = {os.path.dirname(os.path.dirname(module.__file__)) for module in (torch, torchvision)}
with open(sys.argv[1], 'w') as file:
    file.write('\n'.join(sorted(folders)) + '\n')
LINK
}

install() {
  env PIP_USER=0 PYTHONNOUSERSITE=1 "$venv/bin/python" -m pip install --no-index --no-deps \
    --no-build-isolation --disable-pip-version-check -q --find-links "$bundle/wheels" "$@"
}

bootstrap_pip() {
  local wheel
  wheel=$(compgen -G "$bundle/wheels/pip-*.whl")
  # pip runs from its own wheel, in order to install itself.
  PIP_USER=0 "$venv/bin/python" "$wheel/pip" install --no-index --no-deps -q \
    --disable-pip-version-check --find-links "$bundle/wheels" -r "$bundle/build.txt"
}

# --- mmcv -------------------------------------------------------------------------------------

mmcv_works() {
  # shellcheck disable=SC2086  # the devices are separate words
  "$venv/bin/python" - $devices <<'PROOF'
import sys
import torch
import mmcv.ops

for device in sys.argv[1:]:
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 9.0, 9.0]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    try:
        assert len(mmcv.ops.nms(boxes, scores, 0.5)[0]) == 1
    except RuntimeError as error:
        # Left out on purpose with --ops.
        if 'was compiled without' not in str(error):
            raise
PROOF
}

install_mmcv() {
  local stamp=$venv/.mmcv-ops
  if [[ -f $stamp && $(<"$stamp") == "$ops $devices" ]] && mmcv_works 2>/dev/null; then return; fi
  rm -f "$stamp"
  if [[ -n $mmcv_wheel ]]; then
    install --force-reinstall "$mmcv_wheel" ||
      fail "$mmcv_wheel does not fit this Python: build it here, without --mmcv-wheel."
    mmcv_works ||
      fail "$mmcv_wheel does not work beside this torch (the reason stands above): build it here," \
        "without --mmcv-wheel."
  else
    compile_mmcv
    mmcv_works ||
      fail "mmcv was compiled but its operators do not work (the reason stands above): try" \
        "--ops all, and send the reason to the authors."
  fi
  echo "$ops $devices" >"$stamp"
}

compile_mmcv() {
  local source=$venv/mmcv-source log=$venv/mmcv-build.log
  # A source restricted for other operators lacks what this run may need.
  if [[ ! -f $source/.ops || $(<"$source/.ops") != "$ops $devices" ]]; then
    rm -rf "$source"
    mkdir "$source"
    tar -xzf "$bundle"/mmcv-*.tar.gz -C "$source" --strip-components 1
    if [[ $ops != all ]]; then
      "$venv/bin/python" "$bundle/restrict_mmcv_ops.py" "$source" --ops "$ops" || exit 2
    fi
    echo "$ops $devices" >"$source/.ops"
  fi
  say "Compiling mmcv's operators ($ops) for: $devices; the log is $log."
  (
    export MMCV_WITH_OPS=1 CFLAGS="-g0 -O2 ${CFLAGS:-}" MAX_JOBS=${MAX_JOBS:-$(nproc)}
    export PATH=$venv/bin:$PATH PIP_USER=0
    if [[ $devices == cpu ]]; then
      export CUDA_VISIBLE_DEVICES='' FORCE_CUDA=0
    else
      export FORCE_CUDA=1
      TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$("$venv/bin/python" -c 'import torch
print(";".join(sorted({"%d.%d" % torch.cuda.get_device_capability(i)
                       for i in range(torch.cuda.device_count())})))')}
      export TORCH_CUDA_ARCH_LIST
    fi
    rm -rf "$venv/mmcv-wheel"
    "$venv/bin/python" -m pip wheel -v --no-index --no-deps --no-build-isolation --no-cache-dir \
      --disable-pip-version-check -w "$venv/mmcv-wheel" "$source"
  ) >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    fail "mmcv could not be compiled: the end of its log stands above, all of it in $log."
  }
  install --force-reinstall "$venv"/mmcv-wheel/*.whl
}

# --- the whole --------------------------------------------------------------------------------

main() {
  parse_arguments "$@"
  unset PYTHONPATH PYTHONHOME
  check_bundle
  check_python
  choose_devices
  check_compiler
  make_venv
  say "Installing the packages of the bundle (about 2 minutes)."
  # Without the link, so that no package of the other environment passes for one of the bundle.
  rm -f "$(torch_link)"
  bootstrap_pip
  install -r "$bundle/pins.txt"
  # Another bundle may hold another state of the same version.
  install --force-reinstall mmdsym
  link_torch
  install_mmcv
  "$venv/bin/python" -c 'import mmdet, mmcv.ops, mmdsym' ||
    fail "the packages are installed but cannot be imported: the reason stands above."
  local files
  # Isolated, lest a checkout in the present folder be found in place of what was installed.
  files=$("$venv/bin/python" -I -c 'import os, mmdsym
print(os.path.join(os.path.dirname(mmdsym.__file__), ".mim"))')
  say "Done: run $venv/bin/python; the configs and tools are in $files."
}

main "$@"
