"""Stages and learning rate for one GPU: 12,000 iterations of 8 labelled and 8 unlabelled images."""

_base_ = 'adamw.py'

train_cfg = dict(
    type='mmdsym.StagedTrainLoop',
    val_interval=2000,
    stages=dict(
        burn_in=dict(begin=0, end=4000, images=dict(labelled=8)),
        joint=dict(
            begin=4000,
            end=10000,
            images=dict(labelled=8, unlabelled=8),
            loss_weights=dict(unlabelled=dict(start=0.0, end=1.0, iterations=1000)),
            thresholds=dict(target_precision=0.8),
        ),
        refine=dict(
            begin=10000,
            end=12000,
            images=dict(labelled=7, calibration=1, unlabelled=8),
            thresholds=dict(target_precision=0.85),
        ),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=500, end='refine'),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
