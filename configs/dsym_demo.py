"""DSYM on the demo's generated steel surfaces: the whole of it, small, for a CPU."""

_base_ = 'dsym_neu_40pct.py'

data_root = 'data/demo/'
split = '40pct_seed0'
image_size = (192, 192)

parts = dict(
    diffusion=dict(config='diffusion/defect_inpaint_demo.py'),
    clip=dict(config='clip/adapt_clip_demo.py'),
)
train_dataloader = dict(dataset=dict(sources=dict(synthetic=dict(count=60))))

train_cfg = dict(
    val_interval=400,
    stages=dict(
        burn_in=dict(end=200),
        joint=dict(begin=200, end=350, loss_weights=dict(unlabelled=dict(iterations=50))),
        refine=dict(begin=350, end=400, loss_weights=dict(synthetic=dict(iterations=50))),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=50, end='refine'),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
