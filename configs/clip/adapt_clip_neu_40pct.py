"""Teaches CLIP the six defects of NEU-DET from the labelled crops of burn-in."""

_base_ = ['../_base_/runtime.py', '../_base_/clip/crops.py']

data_root = 'data/neu_det/'
split = '40pct_seed0'

model = dict(
    type='mmdsym.CLIPAdaptation',
    classes='{data_root}annotations/{split}/burn_in.json',
    model=_base_.clip_model,
    image_pretrained='pypi:efficientnet_lite0',
    views=_base_.views,
    # Stem and the blocks down to stride 8 stay as ImageNet left them: half of the time.
    trained_groups=11,
)

max_iters = 700
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100)
val_cfg = dict(type='ValLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0,
        bias_decay_mult=0,
        custom_keys={
            'visual.trunk': dict(lr_mult=0.5),
            'logit_scale': dict(decay_mult=0),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=50, end=max_iters),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=100, max_keep_ckpts=1),
)
log_processor = dict(window_size=20)
custom_hooks = [
    # What is drawn follows from the iteration: an interrupted training ends like a whole one.
    dict(type='mmdsym.IterationSeedHook'),
    dict(type='mmdsym.ChannelsLastHook'),
    dict(type='mmdsym.CLIPExportHook', out_dir='{data_root}clip/{split}'),
]
