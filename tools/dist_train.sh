#!/usr/bin/env bash
# Trains on several devices of one or several machines.
#   tools/dist_train.sh CONFIG DEVICES [arguments of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
config=$1
devices=$2
python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$devices" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "${@:3}"
