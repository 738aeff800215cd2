"""CLIP as second opinion on pseudo-labels: scorer, prompts, prototypes, adaptation, filter."""

from .cluster_evidence import ClusterEvidence, suppress
from .context_evidence import BoxShapes, ContextEvidence
from .evidence import Evidence, JoinedEvidence, TeacherEvidence
from .fusion import Fusion, FusionReport
from .scorer import BoxScores, CLIPScorer
from .stability_evidence import StabilityEvidence

__all__ = [
    'BoxScores',
    'BoxShapes',
    'CLIPScorer',
    'ClusterEvidence',
    'ContextEvidence',
    'Evidence',
    'Fusion',
    'FusionReport',
    'JoinedEvidence',
    'StabilityEvidence',
    'TeacherEvidence',
    'suppress',
]
