"""DSYM with synthetic images as a further source; the stages say when they are used."""

_base_ = ['dsym.py', '../datasets/synthetic.py']

synthetic_pipeline = [
    *_base_.supervised_views,
    dict(type='MultiBranch', branch_field=_base_.branches, synthetic=_base_.pack),
]
train_dataloader = dict(
    dataset=dict(
        sources=dict(synthetic=dict(_delete_=True, pipeline=synthetic_pipeline, **_base_.synthetic))
    )
)
