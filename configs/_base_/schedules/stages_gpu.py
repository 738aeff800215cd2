"""Stages and learning rate for one GPU: 12,000 iterations of 8 labelled and 8 unlabelled images."""

_base_ = 'stages_cpu.py'

train_cfg = dict(
    val_interval=2000,
    stages=dict(
        burn_in=dict(end=4000),
        joint=dict(begin=4000, end=10000, loss_weights=dict(unlabelled=dict(iterations=1000))),
        refine=dict(begin=10000, end=12000),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=500, end='refine'),
]
