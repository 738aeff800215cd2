"""Labelled crops to learn from, and those of other labelled images to judge by."""

_base_ = 'model.py'

train_dataloader = dict(
    batch_size=48,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmdsym.CropDataset',
        ann_file='{data_root}annotations/{split}/burn_in.json',
        images_dir='{data_root}images/',
        views=_base_.views,
        size=_base_.crop_size,
        augmentation=dict(),
        balanced=True,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmdsym.CropDataset',
        ann_file='{data_root}annotations/{split}/calibration.json',
        images_dir='{data_root}images/',
        views=_base_.views,
        size=_base_.crop_size,
        jittered_copies=1,
    ),
)
val_evaluator = dict(type='mmdsym.CropMetric')
