"""The labelled images alone, on a small Faster R-CNN."""

_base_ = [
    '../../_base_/runtime.py',
    '../../_base_/detectors/faster_rcnn_efficientnet_lite0.py',
    '../../_base_/datasets/supervised.py',
    '../../_base_/schedules/iterations_cpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [dict(type='mmdsym.ChannelsLastHook')]
# Neck and heads have no normalisation: at 1e-3 the loss rises after 100 iterations.
optim_wrapper = dict(optimizer=dict(lr=3e-4))
