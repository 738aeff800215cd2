"""DSYM in one joint stage from the first iteration, with the teacher copied there."""

_base_ = 'dsym.py'

stages = _base_.train_cfg.stages
last = list(stages)[-1]
train_cfg = dict(
    stages=dict(_delete_=True, joint=dict(stages['joint'], begin=0, end=stages[last]['end'])),
)
param_scheduler = [
    dict(entry, end='joint') if entry.end == last else entry for entry in _base_.param_scheduler
]
