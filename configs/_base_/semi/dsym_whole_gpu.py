"""DSYM with all its parts on one GPU: a longer schedule and the larger diffusion model.

A leaf config wraps its detector as with ``dsym_whole.py``, and sets a learning rate that suits it.
"""

_base_ = 'dsym_whole.py'

# The lengths of schedules/stages_gpu.py.
train_cfg = dict(
    val_interval=2000,
    stages=dict(
        burn_in=dict(end=4000),
        joint=dict(begin=4000, end=10000, loss_weights=dict(unlabelled=dict(iterations=1000))),
        refine=dict(begin=10000, end=12000, loss_weights=dict(synthetic=dict(iterations=2000))),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=500, end='refine'),
]
parts = dict(diffusion=dict(config='diffusion/defect_inpaint_large_neu_40pct.py'))
