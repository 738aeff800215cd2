"""ATSS on tiles of the large demo images, whose defects are about 10 pixels small.

python tools/prepare_dataset.py --demo-large --tile 256
python tools/train.py configs/baselines/supervised_demo_large.py
python tools/predict_tiled.py work_dirs/supervised_demo_large
"""

_base_ = 'supervised_neu_40pct.py'

data_root = 'data/demo_large/'
split = '100pct_seed0'
# As large as a tile: nothing is scaled, neither in training nor on the line.
image_size = (256, 256)

# Anchors of 16 pixels and more, where the base config has 32.
model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=2)))

max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=30, end=max_iters),
]
