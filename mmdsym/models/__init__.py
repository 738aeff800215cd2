"""Detectors, backbones and what belongs to them."""

from .candidates import candidates_shown, suppress
from .data_preprocessor import StagedDataPreprocessor
from .dsym_detector import DSYMDetector
from .pseudo_labels import (
    CalibratedScorer,
    PseudoLabelReviser,
    PseudoLabels,
    PseudoLabelScorer,
    PseudoLabelStatistics,
    silences,
)
from .timm_backbone import TimmBackbone

__all__ = [
    'CalibratedScorer',
    'DSYMDetector',
    'PseudoLabelReviser',
    'PseudoLabelScorer',
    'PseudoLabelStatistics',
    'PseudoLabels',
    'StagedDataPreprocessor',
    'TimmBackbone',
    'candidates_shown',
    'silences',
    'suppress',
]
