"""What CLIP says about the class of a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdsym.errors import UserError

_EPS = 1e-4


class FeatureScorer(Protocol):
    """What tells classes from features, such as :class:`mmdsym.clip.CLIPScorer`."""

    def score_features(self, features: Tensor, labels: Tensor) -> NamedTuple:
        """Returns ``agreement``, ``background`` (N,) and ``distribution`` (N, classes + 1)."""


class ClassEvidence:
    """Agreement of the crop with the class of its box, against other classes and a clean surface.

    Args:
        scorer: Tells classes from features.
    """

    names = ('agreement', 'background', 'best_other')

    def __init__(self, scorer: FeatureScorer) -> None:
        self.scorer = scorer

    def __call__(
        self, predictions: list[InstanceData], features: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """See :class:`mmdsym.clip.evidence.Evidence`; all three are log-odds.

        Raises:
            UserError: There are no features.
        """
        if features is None:
            raise UserError("the evidence 'class' needs the features of crops: give a CLIP scorer.")
        counts = [len(found) for found in predictions]
        if not sum(counts):
            return [torch.zeros(0, len(self.names)) for _ in counts]
        labels = torch.cat([found.labels.cpu() for found in predictions]).long()
        scores = self.scorer.score_features(torch.cat(list(features)), labels)
        distribution = scores.distribution.cpu().float()
        others = distribution[:, :-1].scatter(1, labels[:, None], 0.0)
        values = torch.stack(
            [scores.agreement.cpu().float(), scores.background.cpu().float(), others.amax(dim=1)],
            dim=1,
        )
        return list(torch.logit(values, eps=_EPS).split(counts))
