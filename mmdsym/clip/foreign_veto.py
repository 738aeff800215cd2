"""Images that show something else than the labelled ones do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.dist import all_gather_object
from torch import Tensor

from mmdsym.errors import UserError

_FEWEST_BOXES = 20


class ForeignVeto:
    """Turns down images none of whose boxes looks like a labelled defect of its class.

    A fusion learns from the mistakes that the teacher makes on images like the labelled ones,
    mostly wrong extents. It never sees what else gets into an unlabelled pool: another material,
    another product. There the teacher is sure of boxes that resemble nothing known. On an image of
    the product at least one box does, so images are judged by their most familiar box.

    Args:
        likeness: Features (N, D) and class indices (N,) to how much each crop looks like labelled
            ones of its class, (N,); see :meth:`mmdsym.clip.CLIPScorer.likeness`.
        cost: Share of the right calibration boxes that the veto may cost, in [0, 1); 0 for no veto.

    Attributes:
        limit: Likeness below which an image is turned down; minus infinity for none.

    Raises:
        UserError: ``cost`` is out of range.
    """

    def __init__(self, likeness: Callable[[Tensor, Tensor], Tensor], cost: float = 0.02) -> None:
        if not 0 <= cost < 1:
            raise UserError(
                f'the veto of the CLIP filter cannot cost {cost} of the right boxes: give a share '
                'from 0 to below 1.'
            )
        self.likeness = likeness
        self.cost = cost
        self.limit = -math.inf

    @property
    def counts(self) -> bool:
        """Whether anything is turned down at present."""
        return self.limit > -math.inf

    def familiarity(self, features: Tensor, labels: Tensor) -> float:
        """Returns the likeness of an image's most familiar box; infinite without a box.

        Args:
            features: Of its boxes, (N, D).
            labels: Their class indices, (N,).
        """
        if not len(labels):
            return math.inf
        return float(self.likeness(features, labels).max())

    def fit(
        self,
        features: Sequence[Tensor],
        labels: Sequence[Tensor],
        right_boxes: Sequence[int],
    ) -> None:
        """Sets the limit so that at most :attr:`cost` of the right boxes lie below it.

        Args:
            features: Of the boxes of each calibration image that CLIP was shown.
            labels: Likewise.
            right_boxes: How many boxes of each image are right, shown or not.
        """
        mine = [
            (self.familiarity(of_image, found), right)
            for of_image, found, right in zip(features, labels, right_boxes, strict=True)
            if right and len(found)
        ]
        pairs = [pair for part in all_gather_object(mine) for pair in part]
        levels = np.repeat([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        self.limit = -math.inf
        if self.cost and len(levels) >= _FEWEST_BOXES:
            self.limit = float(np.quantile(levels, self.cost, method='lower'))

    def rejects(self, features: Tensor, labels: Tensor) -> bool:
        """Says whether an image is turned down.

        Args:
            features: Of its boxes that CLIP was shown, (N, D).
            labels: Their class indices, (N,).
        """
        return self.counts and self.familiarity(features, labels) < self.limit


def nearest_likeness(
    features: Tensor, labels: Tensor, known: Tensor, known_labels: Tensor, neighbours: int = 3
) -> Tensor:
    """Returns the mean cosine with the nearest labelled crops of the same class.

    Args:
        features: Unit vectors, (N, D).
        labels: Class indices, (N,).
        known: Unit vectors of labelled crops, (M, D).
        known_labels: Their class indices, (M,).
        neighbours: How many to compare with, from 1.

    Returns:
        (N,), in [-1, 1]; 1 for a class of which no crop is known: nothing speaks against it.
    """
    same = labels[:, None] == known_labels[None, :]
    similarity = (features @ known.T).masked_fill(~same, -torch.inf)
    nearest = similarity.topk(min(neighbours, len(known)), dim=1).values
    found = nearest.isfinite()
    mean = nearest.masked_fill(~found, 0.0).sum(dim=1) / found.sum(dim=1).clamp(min=1)
    return torch.where(found.any(dim=1), mean, 1.0)
