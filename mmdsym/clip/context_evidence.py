"""How a box stands among the other boxes of its image, and among the labelled boxes of its class.

A detector scores each box by itself. What it cannot see are its own other boxes: a part of a
defect beside the box of the whole, one defect under two classes, a class that no other box of the
image confirms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from .evidence import alike, image_sizes, is_above, largest, logit
from .padded_boxes import PaddedBoxes, judge_together
from .pair_overlaps import pair_overlaps

LARGEST_Z = 4.0
"""Standard scores of size and shape are cut here: what is odd is odd."""

_INSIDE = 0.7


@dataclass(frozen=True)
class BoxShapes:
    """Mean and spread of log-area and log-aspect of each class's labelled boxes.

    Attributes:
        mean, spread: (num_classes, 2); classes with few boxes are drawn towards all boxes.
    """

    mean: Tensor
    spread: Tensor

    @classmethod
    def measure(
        cls, boxes: Tensor, labels: Tensor, num_classes: int, prior_boxes: float = 5.0
    ) -> BoxShapes:
        """Measures labelled boxes.

        Args:
            boxes: (N, 4), x1 y1 x2 y2 in pixels.
            labels: (N,), class indices.
            num_classes: Number of rows of the result.
            prior_boxes: Strength of the common estimate, in boxes.
        """
        values = shape_of(boxes)
        if not len(values):
            return cls(torch.zeros(num_classes, 2), torch.ones(num_classes, 2))
        mean, square = values.mean(dim=0), values.square().mean(dim=0)
        means, spreads = [], []
        for label in range(num_classes):
            mine = values[labels == label]
            total = len(mine) + prior_boxes
            class_mean = (mine.sum(dim=0) + prior_boxes * mean) / total
            class_square = (mine.square().sum(dim=0) + prior_boxes * square) / total
            means.append(class_mean)
            spreads.append((class_square - class_mean.square()).clamp(min=1e-2).sqrt())
        return cls(torch.stack(means), torch.stack(spreads))


def shape_of(boxes: Tensor) -> Tensor:
    """Returns log-area and log-aspect (width by height) of boxes: (..., 4) -> (..., 2).

    Sides count as at least one pixel.
    """
    sides = (boxes[..., 2:] - boxes[..., :2]).float().clamp(min=1.0).log()
    return torch.stack([sides.sum(dim=-1), sides[..., 0] - sides[..., 1]], dim=-1)


class ContextEvidence:
    """Relations among the boxes of an image; costs no look at the image.

    Args:
        shapes: Of the labelled boxes.
        border: Distance in pixels within which a box touches the border of the image.
    """

    names = (
        'overlap_above',
        'inside_above',
        'covers_above',
        'overlap_above_other',
        'support_same',
        'support_other',
        'parts_inside',
        'wholes_around',
        'best_part',
        'share_of_class',
        'best_other_of_class',
        'best_of_other_classes',
        'boxes_of_class',
        'boxes',
        'log_area_z',
        'log_aspect_z',
        'odd_area',
        'odd_aspect',
        'borders_touched',
    )

    def __init__(self, shapes: BoxShapes, border: float = 2.0) -> None:
        self.shapes = shapes
        self.border = border

    def __call__(
        self, predictions: list[InstanceData], features: list[Tensor] | None = None
    ) -> list[Tensor]:
        """See :class:`mmdsym.clip.evidence.Evidence`."""
        return judge_together(self._judge, predictions, len(self.names))

    def _judge(self, boxes: PaddedBoxes, predictions: Sequence[InstanceData]) -> Tensor:
        sizes = boxes.bboxes.new_tensor(image_sizes(predictions))
        return torch.cat([self._relations(boxes), self._shape(boxes, sizes)], dim=-1)

    def _relations(self, boxes: PaddedBoxes) -> Tensor:
        scores = boxes.scores
        overlap, inside = pair_overlaps(boxes.bboxes, boxes.bboxes)
        covers = inside.mT
        same = alike(boxes.labels, boxes.labels)
        others = ~torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
        same_others = same & others
        above = is_above(scores)
        above_same = above & same
        spread = scores[..., None, :]
        weight = overlap * spread
        total = scores.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        return torch.stack(
            [
                largest(overlap, above_same, default=0.0),
                largest(inside, above_same, default=0.0),
                largest(covers, above_same, default=0.0),
                largest(overlap, above & ~same, default=0.0),
                (weight * same_others).sum(dim=-1),
                (weight * ~same).sum(dim=-1),
                (spread * (same_others & (covers > _INSIDE))).sum(dim=-1),
                (spread * (same_others & (inside > _INSIDE))).sum(dim=-1),
                largest(covers * spread, same_others, default=0.0),
                (spread * same).sum(dim=-1) / total,
                logit(largest(spread, same_others, default=0.0)),
                logit(largest(spread, ~same, default=0.0)),
                same.sum(dim=-1).float().log(),
                boxes.counts.float().log()[:, None].expand_as(scores),
            ],
            dim=-1,
        )

    def _shape(self, boxes: PaddedBoxes, sizes: Tensor) -> Tensor:
        corners = boxes.bboxes
        mean = self.shapes.mean.to(corners)[boxes.labels]
        spread = self.shapes.spread.to(corners)[boxes.labels]
        z = ((shape_of(corners) - mean) / spread).clamp(-LARGEST_Z, LARGEST_Z)
        touched = (corners[..., :2] <= self.border).sum(dim=-1)
        touched = touched + (corners[..., 2:] >= sizes[:, None] - self.border).sum(dim=-1)
        return torch.cat([z, z.square(), touched[..., None].float()], dim=-1)
