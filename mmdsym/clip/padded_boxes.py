"""Boxes of several images in one tensor: hundreds of small operations become a few larger ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_NO_CLASS = -1
_IMAGES_AT_ONCE = 16
"""Bounds the memory that pairs of boxes take where a whole split is judged."""


class PaddedBoxes(NamedTuple):
    """Boxes of several images, filled up to as many as the image with most of them has.

    A box that fills up is empty, has the score 0 and no class, and comes last: it overlaps no box
    and is ranked above none.

    Attributes:
        bboxes: (images, N, 4), x1 y1 x2 y2 in pixels.
        scores: (images, N).
        labels: (images, N), class indices.
        counts: (images,), how many of each image are real.
    """

    bboxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor


def judge_together(
    judge: Callable[[PaddedBoxes, Sequence[InstanceData]], Tensor],
    predictions: Sequence[InstanceData],
    columns: int,
) -> list[Tensor]:
    """Judges the boxes of some images, several images at once.

    Args:
        judge: Returns (images, N, columns) for padded boxes and the images that they are of.
        predictions: Per image ``bboxes``, ``scores`` and ``labels``.
        columns: Of the result.

    Returns:
        (N, columns) for each image.
    """
    results = []
    for start in range(0, len(predictions), _IMAGES_AT_ONCE):
        chunk = predictions[start : start + _IMAGES_AT_ONCE]
        counts = [len(found) for found in chunk]
        if max(counts):
            values = judge(_pad(chunk), chunk)
            results += [rows[:count] for rows, count in zip(values, counts, strict=True)]
        else:
            results += [found.scores.new_zeros(0, columns).float() for found in chunk]
    return results


def _pad(predictions: Sequence[InstanceData]) -> PaddedBoxes:
    labels = [found.labels for found in predictions]
    return PaddedBoxes(
        pad_sequence([found.bboxes.float() for found in predictions], batch_first=True),
        pad_sequence([found.scores.float() for found in predictions], batch_first=True),
        pad_sequence(labels, batch_first=True, padding_value=_NO_CLASS),
        torch.tensor([len(found) for found in predictions], device=labels[0].device),
    )
