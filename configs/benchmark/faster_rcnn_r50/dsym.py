"""DSYM with all its parts on Faster R-CNN with ResNet-50, on one GPU."""

_base_ = [
    '../../_base_/runtime.py',
    '../../_base_/detectors/faster_rcnn_r50.py',
    '../../_base_/semi/dsym_whole.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (448, 448)

model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)

# The lengths of schedules/stages_gpu.py.
train_cfg = dict(
    val_interval=2000,
    stages=dict(
        burn_in=dict(end=4000),
        joint=dict(begin=4000, end=10000, loss_weights=dict(unlabelled=dict(iterations=1000))),
        refine=dict(begin=10000, end=12000, loss_weights=dict(synthetic=dict(iterations=2000))),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=500, end='refine'),
]
parts = dict(diffusion=dict(config='diffusion/defect_inpaint_large_neu_40pct.py'))
