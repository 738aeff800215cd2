"""The supervised baseline: ATSS on the 576 labelled images alone."""

_base_ = [
    '../_base_/runtime.py',
    '../_base_/detectors/atss_efficientnet_lite0.py',
    '../_base_/datasets/supervised.py',
    '../_base_/schedules/adamw.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'

max_iters = 1800
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=600)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=100, end=max_iters),
]
custom_hooks = [dict(type='mmdsym.ChannelsLastHook')]
