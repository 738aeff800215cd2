"""Learns to paint the defects of the demo's steel surfaces: two minutes on a CPU."""

_base_ = 'defect_inpaint_neu_40pct.py'

data_root = 'data/demo/'
split = '40pct_seed0'

train_dataloader = dict(batch_size=8)

max_iters = 200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.05, by_epoch=False, begin=20, end=max_iters),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=50))
