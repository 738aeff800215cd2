"""DSYM with all its parts on a small Faster R-CNN."""

_base_ = [
    '../../_base_/runtime.py',
    '../../_base_/detectors/faster_rcnn_efficientnet_lite0.py',
    '../../_base_/semi/dsym_whole.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'

model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)
# Neck and heads have no normalisation: at 1e-3 the loss rises after 100 iterations.
optim_wrapper = dict(optimizer=dict(lr=3e-4))
