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
