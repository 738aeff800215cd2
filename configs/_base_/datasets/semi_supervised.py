"""The sources of a split: labelled, held out for calibration, unlabelled (and synthetic later)."""

_base_ = 'evaluation.py'

labelled = dict(
    type='mmdsym.DefectDataset',
    ann_file='{data_root}annotations/{split}/burn_in.json',
    data_prefix=dict(img='{data_root}images/'),
    pipeline=_base_.labelled_pipeline,
)
calibration = dict(
    type='mmdsym.DefectDataset',
    ann_file='{data_root}annotations/{split}/calibration.json',
    data_prefix=dict(img='{data_root}images/'),
    pipeline=_base_.labelled_pipeline,
)
unlabelled = dict(
    type='mmdsym.DefectDataset',
    ann_file='{data_root}annotations/{split}/unlabelled.json',
    data_prefix=dict(img='{data_root}images/'),
    pipeline=_base_.unlabelled_pipeline,
)

train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdsym.StagedSampler'),
    batch_sampler=dict(type='mmdsym.StagedBatchSampler'),
    dataset=dict(
        type='mmdsym.MultiSourceDataset',
        sources=dict(
            labelled=labelled, calibration=calibration, synthetic=None, unlabelled=unlabelled
        ),
    ),
)

calibration_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='mmdsym.DefectDataset',
        ann_file='{data_root}annotations/{split}/calibration.json',
        data_prefix=dict(img='{data_root}images/'),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    ),
)
# Boxes on images that train the detector help to tell how right boxes stand among others.
further_dataloader = dict(
    calibration_dataloader,
    dataset=dict(
        calibration_dataloader['dataset'], ann_file='{data_root}annotations/{split}/burn_in.json'
    ),
)
