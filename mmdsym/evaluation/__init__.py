"""Measures: how right pseudo-labels are, and which score to trust."""

from .calibration import (
    KEEP_NOTHING,
    JudgedDetections,
    cover_thresholds,
    doubt_threshold,
    judge_detections,
    keep_thresholds,
)
from .defect_metric import DefectMetric
from .operating_point import best_f1_thresholds
from .precision_recall import PrecisionRecallCurve, mean_average_precision
from .pseudo_label_metric import PseudoLabelMetric, read_truth
from .pseudo_label_quality import PseudoLabelQuality, ScoredBoxes, TrueBoxes, measure_quality
from .pseudo_label_report import write_report

__all__ = [
    'KEEP_NOTHING',
    'DefectMetric',
    'JudgedDetections',
    'PrecisionRecallCurve',
    'PseudoLabelMetric',
    'PseudoLabelQuality',
    'ScoredBoxes',
    'TrueBoxes',
    'best_f1_thresholds',
    'cover_thresholds',
    'doubt_threshold',
    'judge_detections',
    'keep_thresholds',
    'mean_average_precision',
    'measure_quality',
    'read_truth',
    'write_report',
]
