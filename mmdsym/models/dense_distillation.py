"""The student learns the teacher's class scores at every place, not only its surest boxes.

A pseudo-box says yes; where no box of a class is sure enough, it says nothing. The teacher's scores
at all places say how likely a defect is there, also for classes whose boxes are never sure
(Dense Teacher, arXiv 2207.02541; the unsupervised loss of DSYM, arXiv 2507.05588).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample

FOREGROUND = 0.1
"""Teacher's score from which a place counts in the norm of the loss, as positives do elsewhere."""


def scores_densely(detector: nn.Module) -> bool:
    """Says whether a detector scores every class by itself at every place, with one prior each.

    Several priors of a place differ in shape, which a transposed view would exchange.
    """
    head = getattr(detector, 'bbox_head', None)
    return (
        getattr(head, 'use_sigmoid_cls', False)
        and hasattr(head, 'prior_generator')
        and all(number == 1 for number in head.prior_generator.num_base_priors)
    )


@contextmanager
def class_logits_recorded(detector: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Records what the head says of the classes in each of its passes, while the context lasts.

    Args:
        detector: One that :func:`scores_densely`.

    Yields:
        A list that grows by one entry a pass: for each level logits of shape (N, classes, H, W).
    """
    passes: list[list[Tensor]] = []
    handle = detector.bbox_head.register_forward_hook(
        lambda head, inputs, outputs: passes.append(list(outputs[0]))
    )
    try:
        yield passes
    finally:
        handle.remove()


class TeacherScores(NamedTuple):
    """What the teacher says of the classes at every place of its views of the images.

    Attributes:
        logits: Per level, shape (N, classes, H, W).
        views: Data samples of the N views.
    """

    logits: list[Tensor]
    views: SampleList


class PlaceScores(NamedTuple):
    """Scores that the student shall give at the places of one level.

    Attributes:
        scores: In [0, 1], shape (N, classes, H, W).
        seen: 1 where both views show the place, else 0; shape (N, 1, H, W).
    """

    scores: Tensor
    seen: Tensor


@torch.no_grad()
def scores_in_view(
    teacher: TeacherScores, views: SampleList, logits: Sequence[Tensor], head: nn.Module
) -> list[PlaceScores]:
    """Carries the teacher's scores to the student's views of the same images.

    Args:
        teacher: Its scores.
        views: Data samples of the student's views.
        logits: Of the student, per level (N, classes, H, W): which places there are.
        head: A head that :func:`scores_densely`; says where the places of a level lie.
    """
    generator = head.prior_generator
    # Anchors and points name the same thing differently.
    offset = getattr(generator, 'center_offset', getattr(generator, 'offset', 0.5))
    moves = [
        torch.from_numpy(_homography(source) @ np.linalg.inv(_homography(view))).to(logits[0])
        for source, view in zip(teacher.views, views, strict=True)
    ]
    levels = []
    for given, wanted, stride in zip(teacher.logits, logits, generator.strides, strict=True):
        places = _places(wanted, stride, offset)
        points = torch.stack([places @ move[:2, :2].T + move[:2, 2] for move in moves])
        seen = _inside(points, teacher.views) & _inside(places[None], views)
        index = points / points.new_tensor(stride) - offset
        last = points.new_tensor([given.shape[-1] - 1, given.shape[-2] - 1])
        scores = grid_sample(
            given.float().sigmoid(),
            2 * index / last.clamp(min=1) - 1,
            padding_mode='border',
            align_corners=True,
        )
        levels.append(PlaceScores(scores, seen[:, None].float()))
    return levels


def distillation_loss(logits: Sequence[Tensor], targets: Sequence[PlaceScores]) -> Tensor:
    """Says how far the student's scores are from the teacher's: their Kullback-Leibler divergence.

    Args:
        logits: Of the student, per level (N, classes, H, W).
        targets: As :func:`scores_in_view` returns them.

    Returns:
        The sum over all places and classes, divided by the sum of the teacher's scores from
        :data:`FOREGROUND` on.
    """
    divergence, foreground = 0.0, 0.0
    for student, (scores, seen) in zip(logits, targets, strict=True):
        cross = binary_cross_entropy_with_logits(student.float(), scores, reduction='none')
        own = -torch.xlogy(scores, scores) - torch.xlogy(1 - scores, 1 - scores)
        divergence = divergence + ((cross - own) * seen).sum()
        foreground = foreground + (scores * seen * (scores >= FOREGROUND)).sum()
    return divergence / foreground.clamp(min=1.0)


def _places(level: Tensor, stride: tuple[int, int], offset: float) -> Tensor:
    """Points (x, y) of a level in pixels of the view, shape (H, W, 2)."""
    x = (torch.arange(level.shape[-1], device=level.device) + offset) * stride[0]
    y = (torch.arange(level.shape[-2], device=level.device) + offset) * stride[1]
    rows, columns = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([columns, rows], dim=-1).to(level.dtype)


def _inside(points: Tensor, views: SampleList) -> Tensor:
    """Which points, (N or 1, H, W, 2), lie within their view and not in its padding."""
    limits = points.new_tensor([view.img_shape[1::-1] for view in views])[:, None, None]
    return ((points >= 0) & (points <= limits)).all(dim=-1)


def _homography(sample: DetDataSample) -> np.ndarray:
    """Original image to view; nothing moved where the sample has none."""
    matrix = sample.get('homography_matrix')
    return np.eye(3) if matrix is None else np.asarray(matrix, dtype=np.float64)
