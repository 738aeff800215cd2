"""DSYM with all its parts on a small Faster R-CNN."""

_base_ = [
    '../../_base_/runtime.py',
    '../../_base_/detectors/faster_rcnn_efficientnet_lite0.py',
    '../../_base_/semi/dsym_whole.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'

model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)
