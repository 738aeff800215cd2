"""DSYM on NEU-DET with 40 % of the labels: RetinaNet on ResNet-50, on one GPU."""

_base_ = [
    '_base_/runtime.py',
    '_base_/detectors/retinanet_r50.py',
    '_base_/semi/dsym_whole_gpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (448, 448)

model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
