"""All labelled images of a split, for plain supervised training."""

_base_ = 'evaluation.py'

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmdsym.DefectDataset',
        ann_file='{data_root}annotations/{split}/labelled.json',
        data_prefix=dict(img='{data_root}images/'),
        pipeline=_base_.plain_pipeline,
    ),
)
