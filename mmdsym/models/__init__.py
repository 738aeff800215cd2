"""Detectors, backbones and what belongs to them."""

from .candidates import candidates_shown, suppress
from .data_preprocessor import StagedDataPreprocessor
from .dsym_detector import DSYMDetector
from .fused_views import FusedViews, fuse_views
from .pseudo_labels import (
    CalibratedScorer,
    LabelledPredictions,
    PseudoLabelReviser,
    PseudoLabels,
    PseudoLabelScorer,
    PseudoLabelStatistics,
    silences,
)
from .timm_backbone import TimmBackbone
from .turned_view import predict_turned

__all__ = [
    'CalibratedScorer',
    'DSYMDetector',
    'FusedViews',
    'LabelledPredictions',
    'PseudoLabelReviser',
    'PseudoLabelScorer',
    'PseudoLabelStatistics',
    'PseudoLabels',
    'StagedDataPreprocessor',
    'TimmBackbone',
    'candidates_shown',
    'fuse_views',
    'predict_turned',
    'silences',
    'suppress',
]
