"""The same with a larger network and a longer schedule, for one GPU."""

_base_ = 'defect_inpaint_neu_40pct.py'

model = dict(
    denoiser=dict(
        unet=dict(
            block_out_channels=(128, 256, 384),
            layers_per_block=2,
            norm_num_groups=32,
        ),
    ),
)
train_dataloader = dict(batch_size=64, num_workers=8)

max_iters = 30000
train_cfg = dict(max_iters=max_iters, val_interval=5000)
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.05, by_epoch=False, begin=500, end=max_iters),
]
