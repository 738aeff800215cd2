"""DSYM without a synthetic image in any stage; labelled ones take their places in the batch."""

_base_ = 'dsym.py'

train_dataloader = dict(dataset=dict(sources=dict(synthetic=None)))
train_cfg = dict(
    stages={
        name: dict(
            images=dict(
                labelled=stage['images']['labelled'] + stage['images'].get('synthetic', 0),
                synthetic=0,
            )
        )
        for name, stage in _base_.train_cfg.stages.items()
    },
)
