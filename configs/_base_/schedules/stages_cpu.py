"""Stages and learning rate for a laptop CPU: 1,800 iterations of 8 labelled images.

burn_in learns from labels alone; joint adds the teacher's pseudo-labels, ramped; refine trusts
only the surest of them and at last learns from the calibration images too.
"""

_base_ = 'adamw.py'

train_cfg = dict(
    type='mmdsym.StagedTrainLoop',
    val_interval=600,
    stages=dict(
        burn_in=dict(begin=0, end=700, images=dict(labelled=8)),
        joint=dict(
            begin=700,
            end=1500,
            images=dict(labelled=8, unlabelled=8),
            loss_weights=dict(unlabelled=dict(start=0.0, end=0.25, iterations=200)),
            thresholds=dict(target_precision=0.8),
        ),
        refine=dict(
            begin=1500,
            end=1800,
            images=dict(labelled=7, calibration=1, unlabelled=8),
            loss_weights=dict(unlabelled=0.25),
            thresholds=dict(target_precision=0.85),
        ),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=100, end='refine'),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
