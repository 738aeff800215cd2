"""Measures: how right pseudo-labels are, and which score to trust."""

from .calibration import (
    KEEP_NOTHING,
    JudgedDetections,
    cover_thresholds,
    judge_detections,
    keep_thresholds,
)
from .defect_metric import DefectMetric

__all__ = [
    'KEEP_NOTHING',
    'DefectMetric',
    'JudgedDetections',
    'cover_thresholds',
    'judge_detections',
    'keep_thresholds',
]
