"""RetinaNet on ResNet-50, as MMDetection defines it."""

_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
