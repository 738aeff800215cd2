"""Measures: how right pseudo-labels are, and which score to trust."""

from .calibration import (
    KEEP_NOTHING,
    JudgedDetections,
    cover_thresholds,
    judge_detections,
    keep_thresholds,
)

__all__ = [
    'KEEP_NOTHING',
    'JudgedDetections',
    'cover_thresholds',
    'judge_detections',
    'keep_thresholds',
]
