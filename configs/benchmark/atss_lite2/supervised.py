"""The labelled images alone, on one GPU."""

_base_ = [
    '../../_base_/runtime.py',
    '../../_base_/detectors/atss_efficientnet_lite2.py',
    '../../_base_/datasets/supervised.py',
    '../../_base_/schedules/iterations_gpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (384, 384)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [dict(type='mmdsym.ChannelsLastHook')]
