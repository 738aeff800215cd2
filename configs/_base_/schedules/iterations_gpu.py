"""Learning rate for one GPU without stages: 12,000 iterations, as many as with them."""

_base_ = 'adamw.py'

max_iters = 12000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=2000)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=500, end=max_iters),
]
