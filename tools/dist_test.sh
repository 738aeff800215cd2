#!/usr/bin/env bash
# Evaluates on several devices of one or several machines.
#   tools/dist_test.sh CONFIG CHECKPOINT DEVICES [arguments of tools/test.py]
set -euo pipefail
config=$1
checkpoint=$2
devices=$3
python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$devices" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
