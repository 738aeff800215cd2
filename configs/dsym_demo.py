"""DSYM on the demo's generated steel surfaces: a few minutes on a CPU."""

_base_ = 'dsym_neu_40pct.py'

data_root = 'data/demo/'
split = '40pct_seed0'
image_size = (192, 192)

train_cfg = dict(
    val_interval=300,
    stages=dict(
        burn_in=dict(end=200),
        joint=dict(begin=200, end=350, loss_weights=dict(unlabelled=dict(iterations=50))),
        refine=dict(begin=350, end=400),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=50, end='refine'),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
