"""Teaches CLIP the defects of the demo's steel surfaces: a minute on a CPU."""

_base_ = 'adapt_clip_neu_40pct.py'

data_root = 'data/demo/'
split = '40pct_seed0'

max_iters = 100
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=10, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=50))
