#!/usr/bin/env bash
# Sets up the environment where that is not done yet, then trains a demo detector on generated
# steel surfaces and draws what it finds. Safe to run twice; an interrupted training goes on.
#
#   bash tools/quick_start.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_environment.sh
python=$(realpath -m -- "${MMDSYM_VENV:-.venv}")/bin/python
work_dir=work_dirs/dsym_demo

say() { printf '\n[quick start] %s\n' "$*"; }

say "1 of 3: making the demo data (seconds)."
"$python" tools/prepare_dataset.py --demo --name demo

say "2 of 3: training the demo: a diffusion model, a CLIP model, the detector, its report."
"$python" tools/train.py configs/dsym_demo.py --work-dir "$work_dir"

say "3 of 3: drawing its detections."
"$python" tools/draw_detections.py "$work_dir"

say "Done. The log with the final mAP is in $work_dir; the picture sheet of detections was named
above. To train on your own data, see \"Your own data\" in README.md."
