#!/usr/bin/env bash
# Trains under Slurm.
#   [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5] tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR \
#       [arguments of tools/train.py]
set -euo pipefail
partition=$1
job=$2
config=$3
work_dir=$4
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2086
srun --partition="$partition" --job-name="$job" \
    --gres="gpu:$gpus_per_node" --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --work-dir "$work_dir" --launcher slurm "${@:5}"
