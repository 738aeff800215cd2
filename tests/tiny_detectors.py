"""Small detectors of several kinds, untrained, and runs that hold them."""

from __future__ import annotations

from copy import deepcopy

from conftest import REPOSITORY
from mmengine import Config
from test_export import CLASSES, NECK, PREPROCESSOR, TEST_CFG, retinanet_of_mmdet

COUNT = len(CLASSES)
# So few pixels that no level is cut: ties at a cut would be decided by rounding.
TESTING = dict(TEST_CFG, nms_pre=1000, max_per_img=50)
RESNET = dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3))
POINTS = dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32])


def retinanet() -> dict:
    model = retinanet_of_mmdet()
    model['backbone'] = RESNET
    # Not a multiple of the stride, and BGR: what the others have not.
    preprocessor = dict(PREPROCESSOR, bgr_to_rgb=False, mean=[103.0, 116.0, 123.0], std=[57.0] * 3)
    return dict(model, data_preprocessor=preprocessor, test_cfg=TESTING)


def atss() -> dict:
    anchors = dict(
        type='AnchorGenerator',
        ratios=[1.0],
        octave_base_scale=4,
        scales_per_octave=1,
        strides=[8, 16, 32, 64],
    )
    backbone = dict(
        type='mmdsym.TimmBackbone', model_name='tf_efficientnet_lite0', out_indices=(2, 3, 4)
    )
    head = dict(type='ATSSHead', num_classes=COUNT, in_channels=16, feat_channels=32)
    head |= dict(stacked_convs=1, anchor_generator=anchors)
    neck = dict(NECK, in_channels=[40, 112, 320], num_outs=4)
    return dict(
        type='ATSS',
        data_preprocessor=PREPROCESSOR,
        backbone=backbone,
        neck=neck,
        bbox_head=dict(head, bbox_coder=dict(type='DeltaXYWHBBoxCoder')),
        test_cfg=TESTING,
    )


def fcos() -> dict:
    head = dict(type='FCOSHead', num_classes=COUNT, in_channels=16, feat_channels=64)
    head |= dict(stacked_convs=1, strides=[8, 16, 32, 64, 128], norm_on_bbox=True)
    return dict(retinanet(), type='FCOS', bbox_head=dict(head, centerness_on_reg=True))


def rtmdet() -> dict:
    norm, activation = dict(type='BN'), dict(type='SiLU', inplace=True)
    head = dict(type='RTMDetSepBNHead', num_classes=COUNT, in_channels=16, feat_channels=16)
    head |= dict(stacked_convs=1, exp_on_reg=True, pred_kernel_size=1, with_objectness=False)
    head |= dict(anchor_generator=POINTS, bbox_coder=dict(type='DistancePointBBoxCoder'))
    head |= dict(norm_cfg=norm, act_cfg=activation)
    head |= dict(loss_bbox=dict(type='GIoULoss', loss_weight=2.0))
    return dict(
        type='RTMDet',
        data_preprocessor=dict(PREPROCESSOR, bgr_to_rgb=False),
        backbone=dict(
            type='CSPNeXt',
            deepen_factor=0.167,
            widen_factor=0.125,
            norm_cfg=norm,
            act_cfg=activation,
        ),
        neck=dict(
            type='CSPNeXtPAFPN',
            in_channels=[32, 64, 128],
            out_channels=16,
            num_csp_blocks=1,
            norm_cfg=norm,
            act_cfg=activation,
        ),
        bbox_head=head,
        test_cfg=TESTING,
    )


def faster_rcnn() -> dict:
    anchors = dict(
        type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]
    )
    regions = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
    box_head = dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=32, roi_feat_size=7)
    box_head |= dict(num_classes=COUNT, bbox_coder=dict(type='DeltaXYWHBBoxCoder'))
    model = retinanet()
    del model['bbox_head']
    return model | dict(
        type='FasterRCNN',
        rpn_head=dict(type='RPNHead', in_channels=16, feat_channels=16, anchor_generator=anchors),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(
                type='SingleRoIExtractor',
                roi_layer=regions,
                out_channels=16,
                featmap_strides=[8, 16, 32],
            ),
            bbox_head=box_head,
        ),
        train_cfg=None,
        test_cfg=dict(
            rpn=dict(
                nms_pre=1000,
                max_per_img=40,
                nms=dict(type='nms', iou_threshold=0.7),
                min_bbox_size=0,
            ),
            rcnn=dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=50),
        ),
    )


def gfl() -> dict:
    model = deepcopy(atss())
    head = dict(model['bbox_head'], type='GFLHead', reg_max=8)
    head['loss_cls'] = dict(type='QualityFocalLoss', use_sigmoid=True)
    return dict(model, type='GFL', bbox_head=head)


def deformable_detr() -> dict:
    path = REPOSITORY / 'configs' / '_base_' / 'detectors' / 'deformable_detr_r50.py'
    model = Config.fromfile(path).model.to_dict()
    model['backbone'] |= dict(depth=18, base_channels=8, init_cfg=None)
    model['neck']['in_channels'] = [16, 32, 64]
    model['encoder']['num_layers'] = model['decoder']['num_layers'] = 1
    model['bbox_head']['num_classes'] = COUNT
    # Every pair of query and class is a box: none is at a cut.
    return dict(model, num_queries=15, test_cfg=dict(max_per_img=30))
