"""Faster R-CNN on efficientnet_lite0, small enough for a laptop CPU.

For comparison with MMDetection's Soft Teacher, whose class needs a detector of two stages. Anchors
of 32 to 256 px on strides 8 to 64 suit images of about 224 px.
"""

_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        type='mmdsym.TimmBackbone',
        model_name='tf_efficientnet_lite0',
        pretrained='pypi:efficientnet_lite0',
        out_indices=(2, 3, 4),
        frozen_stages=2,
    ),
    # The backbone's outputs pass no activation and are large: unnormalised, the heads diverge.
    neck=dict(
        in_channels=[40, 112, 320],
        out_channels=96,
        num_outs=4,
        norm_cfg=dict(type='GN', num_groups=32),
    ),
    rpn_head=dict(
        in_channels=96,
        feat_channels=96,
        anchor_generator=dict(scales=[4], strides=[8, 16, 32, 64]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=96, featmap_strides=[8, 16, 32]),
        bbox_head=dict(in_channels=96, fc_out_channels=256),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
