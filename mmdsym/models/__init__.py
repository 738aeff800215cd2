"""Detectors, backbones and what belongs to them."""

from .data_preprocessor import StagedDataPreprocessor
from .dsym_detector import DSYMDetector
from .pseudo_labels import PseudoLabels, PseudoLabelScorer, PseudoLabelStatistics
from .timm_backbone import TimmBackbone

__all__ = [
    'DSYMDetector',
    'PseudoLabelScorer',
    'PseudoLabelStatistics',
    'PseudoLabels',
    'StagedDataPreprocessor',
    'TimmBackbone',
]
