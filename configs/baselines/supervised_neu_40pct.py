"""The supervised baseline: ATSS on the 576 labelled images alone."""

_base_ = [
    '../_base_/runtime.py',
    '../_base_/detectors/atss_efficientnet_lite0.py',
    '../_base_/datasets/supervised.py',
    '../_base_/schedules/iterations_cpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [dict(type='mmdsym.ChannelsLastHook')]
