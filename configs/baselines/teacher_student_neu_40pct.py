"""DSYM without synthetic defects and without CLIP: what teacher and student reach by themselves."""

_base_ = [
    '../_base_/runtime.py',
    '../_base_/detectors/atss_efficientnet_lite0.py',
    '../_base_/semi/dsym.py',
    '../_base_/schedules/stages_cpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'

model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)
