"""The validation images of a prepared data set, never used for any choice."""

_base_ = 'pipelines.py'

val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdsym.DefectDataset',
        ann_file='{data_root}annotations/val.json',
        data_prefix=dict(img='{data_root}images/'),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    ),
)
val_evaluator = dict(
    type='mmdsym.DefectMetric',
    ann_file='{data_root}annotations/val.json',
    metric='bbox',
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
