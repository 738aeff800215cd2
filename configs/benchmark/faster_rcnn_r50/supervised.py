"""The labelled images alone, on Faster R-CNN with ResNet-50."""

_base_ = [
    '../../_base_/runtime.py',
    '../../_base_/detectors/faster_rcnn_r50.py',
    '../../_base_/datasets/supervised.py',
    '../../_base_/schedules/iterations_gpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (448, 448)

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
