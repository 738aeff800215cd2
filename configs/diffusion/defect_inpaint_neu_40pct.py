"""Learns to paint the defects of NEU-DET from 40 % of the labels, on a CPU."""

_base_ = ['../_base_/runtime.py', '../_base_/diffusion/defect_inpaint.py']

data_root = 'data/neu_det/'
split = '40pct_seed0'

max_iters = 2600
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=650)
val_cfg = dict(type='ValLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=8e-4, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.05, by_epoch=False, begin=100, end=max_iters),
]
