"""What the detectors' own doubts say about the worth of a label."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_iou

NEAR = 0.15
"""Distance from a threshold, in score, beyond which a box is no longer in doubt."""


class Doubt(NamedTuple):
    """One reason to label an image.

    Attributes:
        value: In [0, 1]; 0 for none.
        label: Class index of the box that is most in doubt; ``None`` without any.
    """

    value: float
    label: int | None


NO_DOUBT = Doubt(0.0, None)


def disagreement(first: InstanceData, second: InstanceData) -> Doubt:
    """Says how sure one detector is of a box that the other does not see.

    A box is seen by the other as far as a box of the same class overlaps it and has as high a
    score: its share is IoU times the ratio of the lower to the higher score.

    Args:
        first: ``bboxes`` (N, 4), ``scores`` in [0, 1] and ``labels`` (N,).
        second: Likewise.

    Returns:
        The largest product of score and share unseen, of the boxes of both.
    """
    return max(_unseen(first, second), _unseen(second, first), key=lambda doubt: doubt.value)


def clip_disagreement(found: InstanceData, agreement: Tensor) -> Doubt:
    """Says how sure the detector is of a box that CLIP does not take for its class.

    Args:
        found: ``scores`` in [0, 1] and ``labels`` (N,).
        agreement: (N,), CLIP's probability of each box's class.
    """
    return _largest(found.scores * (1 - agreement.to(found.scores)), found.labels)


def closeness(found: InstanceData, keep: Tensor, drop: Tensor) -> Doubt:
    """Says which share of the boxes lies about the thresholds, so that nobody knows what they are.

    Args:
        found: ``scores`` in [0, 1] and ``labels`` (N,).
        keep: (classes,), score from which a box is taken for a defect.
        drop: (classes,), score below which it is taken for none; at most ``keep``.

    Returns:
        Doubtful boxes over doubtful and sure ones, as if there were one sure box more. Between the
        thresholds a box is fully doubtful, beyond them the less so the further away.
    """
    if not len(found):
        return NO_DOUBT
    high, low = keep[found.labels], drop[found.labels]
    beyond = torch.maximum(found.scores - high, low - found.scores).clamp(min=0)
    doubtful = (1 - beyond / NEAR).clamp(min=0)
    sure = (found.scores >= high) * (1 - doubtful)
    share = float(doubtful.sum() / (doubtful.sum() + sure.sum() + 1))
    return Doubt(share, int(found.labels[doubtful.argmax()]) if share else None)


def _unseen(found: InstanceData, other: InstanceData) -> Doubt:
    if not len(found):
        return NO_DOUBT
    seen = found.scores.new_zeros(len(found))
    if len(other):
        scores = torch.stack(torch.broadcast_tensors(found.scores[:, None], other.scores[None, :]))
        ratio = scores.amin(dim=0) / scores.amax(dim=0).clamp(min=1e-6)
        same = found.labels[:, None] == other.labels[None, :]
        seen = (box_iou(found.bboxes, other.bboxes) * ratio * same).amax(dim=1)
    return _largest(found.scores * (1 - seen), found.labels)


def _largest(values: Tensor, labels: Tensor) -> Doubt:
    if not len(values) or not float(values.max()):
        return NO_DOUBT
    best = int(values.argmax())
    return Doubt(float(values[best].clamp(0, 1)), int(labels[best]))
