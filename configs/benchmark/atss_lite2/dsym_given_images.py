"""DSYM with synthetic images that were painted before, as a plain COCO data set.

They lie in ``{data_root}synthetic/{split}/``, ``annotations.json`` and ``images/``: such as a
folder of the cache that another machine made.
"""

_base_ = 'dsym.py'

folder = '{data_root}synthetic/{split}/'
given_images = dict(
    type='mmdsym.DefectDataset',
    ann_file=f'{folder}annotations.json',
    data_prefix=dict(img=f'{folder}images/'),
    pipeline=_base_.synthetic_source.pipeline,
)
train_dataloader = dict(dataset=dict(sources=dict(synthetic=dict(_delete_=True, **given_images))))
