"""DSYM with all its parts on Faster R-CNN with ResNet-50, on one GPU."""

_base_ = '../../dsym_faster_rcnn_r50_neu_40pct.py'
