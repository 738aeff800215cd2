"""DSYM without a synthetic image in any stage."""

_base_ = 'dsym.py'

train_dataloader = dict(dataset=dict(sources=dict(synthetic=None)))
train_cfg = dict(
    stages={name: dict(images=dict(synthetic=0)) for name in _base_.train_cfg.stages},
)
auto_scale_lr = dict(base_batch_size=16)
