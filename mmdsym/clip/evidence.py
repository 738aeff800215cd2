"""What speaks for or against a pseudo-box: the protocol, and the teacher's own word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from .padded_boxes import PaddedBoxes, judge_together

SCORE_FLOOR = 1e-3
"""Scores are taken as at least this, and at most 1 minus this, before a logit is formed."""


class Evidence(Protocol):
    """Numbers about boxes from which :class:`mmdsym.clip.Fusion` learns which boxes are right.

    Attributes:
        names: One for each column.
    """

    names: tuple[str, ...]

    def __call__(
        self, predictions: list[InstanceData], features: list[Tensor] | None = None
    ) -> list[Tensor]:
        """Judges all boxes of some images.

        Args:
            predictions: Per image ``bboxes`` (N, 4), x1 y1 x2 y2 in pixels of the original image,
                ``labels`` (N,) and the teacher's ``scores`` (N,) in [0, 1]. As meta information
                (``predictions[0].set_metainfo(...)``) an image may carry ``image_size`` (width,
                height), ``candidates`` (the boxes before suppression, see
                :func:`mmdsym.models.suppress`) and ``views`` (the boxes that the teacher
                finds in other orientations, see :mod:`mmdsym.clip.stability_evidence`).
            features: Per image the embeddings of its boxes, (N, D); only for kinds of evidence
                that look at crops.

        Returns:
            Per image (N, len(names)), finite float32; (0, len(names)) without boxes.
        """


def logit(scores: Tensor) -> Tensor:
    """Returns the log-odds of scores in [0, 1], finite also at both ends."""
    return torch.logit(scores.float(), eps=SCORE_FLOOR)


class TeacherEvidence:
    """The teacher's score, and how it stands among the scores of the image.

    The first column is the log-odds of the score itself; a fusion without enough labelled boxes
    falls back to it.
    """

    names = ('score_logit', 'rank_in_image', 'rank_in_class', 'gap_to_best_of_class')

    def __call__(
        self, predictions: list[InstanceData], features: list[Tensor] | None = None
    ) -> list[Tensor]:
        """See :class:`Evidence`; ranks are logarithms of 1, 2, ..., gaps are in log-odds."""
        return judge_together(self._judge, predictions, len(self.names))

    def _judge(self, boxes: PaddedBoxes, predictions: Sequence[InstanceData]) -> Tensor:
        score = logit(boxes.scores)
        above = is_above(boxes.scores)
        same = alike(boxes.labels, boxes.labels)
        rank = above.sum(dim=-1) + 1
        rank_in_class = (above & same).sum(dim=-1) + 1
        best = largest(score[..., None, :], same, default=0.0)
        return torch.stack([score, rank.log(), rank_in_class.log(), best - score], dim=-1)


class JoinedEvidence:
    """Several kinds of evidence side by side.

    Args:
        kinds: Name and evidence; the first holds the log-odds of the teacher's score in its first
            column.

    Attributes:
        names: All columns, as ``kind/column``.
        columns: Which columns belong to each kind, for ``Fusion(kinds=...)``.
    """

    def __init__(self, kinds: Mapping[str, Evidence]) -> None:
        self.kinds = dict(kinds)
        self.names = tuple(
            f'{kind}/{name}' for kind, evidence in self.kinds.items() for name in evidence.names
        )
        self.columns: dict[str, list[int]] = {}
        start = 0
        for kind, evidence in self.kinds.items():
            self.columns[kind] = list(range(start, start + len(evidence.names)))
            start += len(evidence.names)

    def __call__(
        self, predictions: list[InstanceData], features: list[Tensor] | None = None
    ) -> list[Tensor]:
        """See :class:`Evidence`."""
        parts = [evidence(predictions, features) for evidence in self.kinds.values()]
        return [
            torch.cat([part.to(found.scores.device) for part in image], dim=1)
            for found, image in zip(predictions, zip(*parts, strict=True), strict=True)
        ]


def alike(labels: Tensor, others: Tensor) -> Tensor:
    """Says which boxes have which others' class: (..., N) and (..., M) -> (..., N, M)."""
    return labels[..., :, None] == others[..., None, :]


def is_above(scores: Tensor) -> Tensor:
    """Says of which boxes come before which: (..., N) -> (..., N, N).

    True at [i, j] if j is ranked above i. Equal scores are ranked by position, as suppression does.
    """
    position = torch.arange(scores.shape[-1], device=scores.device)
    mine, theirs = scores[..., :, None], scores[..., None, :]
    return (theirs > mine) | ((theirs == mine) & (position[None, :] < position[:, None]))


def largest(values: Tensor, mask: Tensor, default: float) -> Tensor:
    """Returns the row maxima where a mask holds, else ``default``: (..., N, M) -> (..., N).

    Args:
        values: As large as the mask or to be expanded to it, above minus infinity.
        mask: Bool; ``M`` may be 0.
        default: Where the mask holds nowhere in a row.
    """
    if not mask.shape[-1]:
        return values.new_full(mask.shape[:-1], default)
    chosen = torch.where(mask, values, -torch.inf).amax(dim=-1)
    return torch.where(chosen == -torch.inf, default, chosen)


def image_sizes(predictions: Sequence[InstanceData]) -> list[tuple[float, float]]:
    """Returns (width, height) of each image.

    Without ``image_size`` in its meta information, an image is taken to end at its outermost box.
    """
    sizes = []
    for found in predictions:
        size = found.metainfo.get('image_size')
        if size is None:
            far = found.bboxes[:, 2:].amax(dim=0) if len(found) else torch.ones(2)
            size = far.clamp(min=1.0).tolist()
        sizes.append((float(size[0]), float(size[1])))
    return sizes
