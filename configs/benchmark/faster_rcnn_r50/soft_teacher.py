"""MMDetection's own Soft Teacher on Faster R-CNN with ResNet-50."""

_base_ = '../../baselines/soft_teacher_neu_40pct.py'
