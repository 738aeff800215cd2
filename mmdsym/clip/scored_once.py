"""Class scores for several askers at the price of one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .class_evidence import FeatureScorer


class ScoredOnce:
    """Remembers the latest scores, since evidence and veto ask for those of the same crops.

    Args:
        scorer: One that has learnt all that it will.
    """

    def __init__(self, scorer: FeatureScorer) -> None:
        self._scorer = scorer
        self._latest: tuple[Tensor, Tensor, NamedTuple] | None = None

    def score_features(self, features: Tensor, labels: Tensor) -> NamedTuple:
        """See :meth:`mmdsym.clip.CLIPScorer.score_features`."""
        if self._latest is not None:
            known, known_labels, scores = self._latest
            if torch.equal(features, known) and torch.equal(labels, known_labels):
                return scores
        scores = self._scorer.score_features(features, labels)
        self._latest = features, labels, scores
        return scores

    def agreement(self, features: Tensor, labels: Tensor) -> Tensor:
        """Returns the probability of each crop's own class, (N,) in [0, 1]."""
        return self.score_features(features, labels).agreement
