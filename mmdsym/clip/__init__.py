"""CLIP as second opinion on pseudo-labels: scorer, prompts, prototypes, adaptation, filter."""

from .acceptance import CLIPAcceptance
from .adaptation import CLIPAdaptation
from .box_opinion import BoxOpinion
from .class_evidence import ClassEvidence
from .cluster_evidence import ClusterEvidence
from .context_evidence import BoxShapes, ContextEvidence
from .crop_dataset import CropDataset
from .crop_metric import CropMetric
from .crop_opinion import CropOpinion, crop_kinds
from .embedding_reuse import EmbeddingMemory
from .evidence import Evidence, JoinedEvidence, TeacherEvidence
from .export_hook import CLIPExportHook
from .filter_building import build_filter
from .filter_hook import CLIPPseudoLabelFilterHook
from .foreign_veto import ForeignVeto
from .fusion import Fusion
from .fusion_report import FusionReport
from .image_gate import ImageGate
from .judged_boxes import JudgedEvidence
from .pseudo_label_filter import PseudoLabelFilter
from .scorer import BoxScores, CLIPScorer
from .stability_evidence import StabilityEvidence

__all__ = [
    'BoxOpinion',
    'BoxScores',
    'BoxShapes',
    'CLIPAcceptance',
    'CLIPAdaptation',
    'CLIPExportHook',
    'CLIPPseudoLabelFilterHook',
    'CLIPScorer',
    'ClassEvidence',
    'ClusterEvidence',
    'ContextEvidence',
    'CropDataset',
    'CropMetric',
    'CropOpinion',
    'EmbeddingMemory',
    'Evidence',
    'ForeignVeto',
    'Fusion',
    'FusionReport',
    'ImageGate',
    'JoinedEvidence',
    'JudgedEvidence',
    'PseudoLabelFilter',
    'StabilityEvidence',
    'TeacherEvidence',
    'build_filter',
    'crop_kinds',
]
