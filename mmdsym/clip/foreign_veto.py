"""Images that show something else than the labelled ones do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.dist import all_gather_object
from torch import Tensor

from mmdsym.errors import UserError

_FEWEST_BOXES = 20


Measure = Callable[[Tensor, Tensor], Tensor]
"""Features (N, D) and class indices (N,) to one number a box, (N,); larger is more familiar."""


class ForeignVeto:
    """Turns down images none of whose boxes looks like a labelled defect of its class.

    A fusion learns from the mistakes that the teacher makes on images like the labelled ones,
    mostly wrong extents. It never sees what else gets into an unlabelled pool: another material,
    another product. There the teacher is sure of boxes that resemble nothing known. On an image of
    the product at least one box does, so images are judged by their most familiar box. An image is
    turned down when all measures find it less familiar than nearly all right boxes.

    Args:
        measures: What is measured of a box, such as :meth:`mmdsym.clip.CLIPScorer.likeness`.
        cost: Share of the right calibration boxes that the veto may cost, in [0, 1); 0 for no veto.
        min_images: Fewer calibration images with right boxes than these, and it takes itself out:
            of as many fresh images of the product it would turn down one for lack of knowledge.

    Attributes:
        limits: One for each measure, below which an image is foreign; minus infinity for never.
        reason: Why it has taken itself out; empty where it has not.

    Raises:
        UserError: ``cost`` is out of range.
    """

    def __init__(
        self, measures: Sequence[Measure], cost: float = 0.02, min_images: int = 20
    ) -> None:
        if not 0 <= cost < 1:
            raise UserError(
                f'the veto of the CLIP filter cannot cost {cost} of the right boxes: give a share '
                'from 0 to below 1.'
            )
        self.measures = tuple(measures)
        self.cost = cost
        self.min_images = min_images
        self.limits = np.full(len(self.measures), -np.inf)
        self.reason = ''

    @property
    def counts(self) -> bool:
        """Whether anything is turned down at present."""
        return bool(np.isfinite(self.limits).all())

    def familiarity(self, features: Sequence[Tensor], labels: Sequence[Tensor]) -> np.ndarray:
        """Returns what each measure says of the most familiar box of each image.

        Args:
            features: Of the boxes of each image, (N, D).
            labels: Their class indices, (N,) each.

        Returns:
            (images, measures), infinite for an image without a box.
        """
        levels = np.full((len(labels), len(self.measures)), np.inf)
        counts = [len(of_image) for of_image in labels]
        if not sum(counts):
            return levels
        # Together: what a measure costs hardly depends on how many boxes it sees.
        boxes = torch.cat(list(features)), torch.cat(list(labels))
        for column, measure in enumerate(self.measures):
            for row, values in enumerate(measure(*boxes).split(counts)):
                if len(values):
                    levels[row, column] = float(values.max())
        return levels

    def fit(
        self,
        features: Sequence[Tensor],
        labels: Sequence[Tensor],
        right_boxes: Sequence[int],
    ) -> None:
        """Sets the limits so that at most :attr:`cost` of the right boxes lie below all of them.

        Args:
            features: Of the boxes of each calibration image that CLIP was shown.
            labels: Likewise.
            right_boxes: How many boxes of each image are right, shown or not.
        """
        levels = self.familiarity(features, labels)
        mine = [
            (level, right)
            for level, found, right in zip(levels, labels, right_boxes, strict=True)
            if right and len(found)
        ]
        pairs = [pair for part in all_gather_object(mine) for pair in part]
        counts = [right for _, right in pairs]
        self.limits = np.full(len(self.measures), -np.inf)
        self.reason = self._reason_to_stay_out(counts)
        if self.cost and not self.reason:
            right_levels = np.repeat(np.stack([level for level, _ in pairs]), counts, axis=0)
            self.limits = _joint_limits(right_levels, self.cost)

    def _reason_to_stay_out(self, right_boxes: Sequence[int]) -> str:
        """Says why calibration images with so many right boxes each are too few, if they are."""
        images, boxes = len(right_boxes), sum(right_boxes)
        if not self.cost or images >= self.min_images and boxes >= _FEWEST_BOXES:
            return ''
        return (
            f'right boxes were found on {images} calibration images, {boxes} in all, fewer than '
            f'{self.min_images} or {_FEWEST_BOXES}'
        )

    def rejects(self, features: Sequence[Tensor], labels: Sequence[Tensor]) -> list[bool]:
        """Says of each image whether it is turned down.

        Args:
            features: Of the boxes of each image that CLIP was shown, (N, D).
            labels: Their class indices, (N,) each.
        """
        if not self.counts:
            return [False] * len(labels)
        return (self.familiarity(features, labels) < self.limits).all(axis=1).tolist()


def _joint_limits(levels: np.ndarray, cost: float) -> np.ndarray:
    """The highest limits of one rank in each column with at most this share of rows below all."""
    ranked = np.sort(levels, axis=0)
    limits = ranked[0]
    for candidate in ranked:
        if (levels < candidate).all(axis=1).mean() > cost:
            break
        limits = candidate
    return limits


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
