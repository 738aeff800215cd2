"""How much pairs of boxes overlap: both measures at once, in few large steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST_AREA = 1e-6


class PairOverlaps(NamedTuple):
    """Overlaps of each box with each other one.

    Attributes:
        iou: (..., N, M), intersection over union, in [0, 1].
        inside: (..., N, M), share of the first box's area that lies in the second one, in [0, 1].
    """

    iou: Tensor
    inside: Tensor


def pair_overlaps(boxes: Tensor, others: Tensor) -> PairOverlaps:
    """Returns the overlaps of boxes with others; empty boxes overlap nothing.

    The same as ``mmdet.structures.bbox.bbox_overlaps`` gives for ``'iou'`` and ``'iof'``, of one
    intersection and without its pairs of corners.

    Args:
        boxes: (..., N, 4), x1 y1 x2 y2.
        others: (..., M, 4).
    """
    shared = _shared_length(boxes, others, axis=0).mul_(_shared_length(boxes, others, axis=1))
    area, area_of_others = _area(boxes)[..., :, None], _area(others)[..., None, :]
    union = (area + area_of_others).sub_(shared).clamp_(min=_SMALLEST_AREA)
    return PairOverlaps(shared / union, shared / area.clamp(min=_SMALLEST_AREA))


def _shared_length(boxes: Tensor, others: Tensor, axis: int) -> Tensor:
    begin = torch.maximum(boxes[..., :, None, axis], others[..., None, :, axis])
    end = torch.minimum(boxes[..., :, None, axis + 2], others[..., None, :, axis + 2])
    return end.sub_(begin).clamp_(min=0)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
