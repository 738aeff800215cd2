"""The supervised baseline with synthetic images: 8 labelled and 2 synthetic ones a batch."""

_base_ = ['supervised_neu_40pct.py', '../_base_/datasets/synthetic.py']

train_dataloader = dict(
    _delete_=True,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdsym.StagedSampler'),
    batch_sampler=dict(type='mmdsym.StagedBatchSampler'),
    dataset=dict(
        type='mmdsym.MultiSourceDataset',
        sources=dict(
            labelled=_base_.train_dataloader.dataset,
            synthetic=dict(_base_.synthetic, pipeline=_base_.plain_pipeline),
        ),
    ),
)
train_cfg = dict(
    _delete_=True,
    type='mmdsym.StagedTrainLoop',
    val_interval=600,
    stages=dict(burn_in=dict(begin=0, end=_base_.max_iters, images=dict(labelled=8, synthetic=2))),
)
