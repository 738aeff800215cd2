"""Faster R-CNN on ResNet-50, as MMDetection defines it."""

_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
