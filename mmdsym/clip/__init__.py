"""CLIP as second opinion on pseudo-labels: scorer, prompts, prototypes, adaptation, filter."""

from .adaptation import CLIPAdaptation
from .cluster_evidence import ClusterEvidence, suppress
from .context_evidence import BoxShapes, ContextEvidence
from .crop_dataset import CropDataset
from .crop_metric import CropMetric
from .evidence import Evidence, JoinedEvidence, TeacherEvidence
from .export_hook import CLIPExportHook
from .fusion import Fusion, FusionReport
from .scorer import BoxScores, CLIPScorer
from .stability_evidence import StabilityEvidence

__all__ = [
    'BoxScores',
    'BoxShapes',
    'CLIPAdaptation',
    'CLIPExportHook',
    'CLIPScorer',
    'ClusterEvidence',
    'ContextEvidence',
    'CropDataset',
    'CropMetric',
    'Evidence',
    'Fusion',
    'FusionReport',
    'JoinedEvidence',
    'StabilityEvidence',
    'TeacherEvidence',
    'suppress',
]
