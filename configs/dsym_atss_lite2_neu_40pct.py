"""DSYM on NEU-DET with 40 % of the labels: ATSS on efficientnet_lite2 at 384 px, on one GPU."""

_base_ = [
    '_base_/runtime.py',
    '_base_/detectors/atss_efficientnet_lite2.py',
    '_base_/semi/dsym_whole_gpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (384, 384)

model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)
