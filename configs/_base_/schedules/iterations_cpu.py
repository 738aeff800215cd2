"""Learning rate for a laptop CPU without stages: 1,800 iterations, as many as with them."""

_base_ = 'adamw.py'

max_iters = 1800
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=600)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=100, end=max_iters),
]
