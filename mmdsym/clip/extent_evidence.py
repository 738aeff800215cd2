"""How well a box fits its defect, as an adapted CLIP model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdsym.errors import UserError

_EPS = 1e-3


class OverlapEstimator(Protocol):
    """What estimates overlaps from features, such as an adapted :class:`CLIPScorer`."""

    def expected_overlap(self, features: Tensor) -> Tensor | None:
        """Returns the expected IoU, (N,); ``None`` where it has not learnt to."""


class ExtentEvidence:
    """Log-odds of the IoU that a box is expected to have with its defect.

    Args:
        scorer: Estimates it.
    """

    names = ('expected_overlap',)

    def __init__(self, scorer: OverlapEstimator) -> None:
        self.scorer = scorer

    def __call__(
        self, predictions: list[InstanceData], features: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """See :class:`mmdsym.clip.evidence.Evidence`.

        Raises:
            UserError: There are no features, or the scorer cannot judge extent.
        """
        counts = [len(found) for found in predictions]
        if not sum(counts):
            return [torch.zeros(0, 1) for _ in counts]
        expected = (
            None if features is None else self.scorer.expected_overlap(torch.cat([*features]))
        )
        if expected is None:
            raise UserError(
                "the evidence 'extent' needs a CLIP model that was adapted with an extent head: "
                'run tools/train.py configs/clip/adapt_clip_neu_40pct.py and give its weights.'
            )
        odds = torch.logit(expected.cpu().float(), eps=_EPS)
        return list(odds[:, None].split(counts))
