"""Non-maximum suppression as the standard ONNX operator, class by class."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torchvision.ops import nms

from mmdsym.errors import UserError

# Below every real score, so that operators which compare with > or >= both leave it out.
NO_SCORE = -1.0
_NMS_KEYS = {'type', 'iou_threshold', 'iou_thr', 'class_agnostic', 'split_thr'}
_NO_LIMIT = 2**31 - 1


class Boxes(NamedTuple):
    """Boxes of a batch of images, as many for each.

    Attributes:
        boxes: Corners x1, y1, x2, y2 in pixels of the network's input, (B, M, 4).
        scores: In [0, 1], or ``NO_SCORE`` where there is no box, (B, M).
        labels: Indices of classes, (B, M).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Suppression(nn.Module):
    """Keeps the best of overlapping boxes of a class, and the best of all of them.

    Args:
        nms_config: As MMDetection's ``test_cfg.nms`` has it.
        class_count: Number of classes, or of whatever else the labels name.
        limit: Number of boxes to keep per image, at most.

    Raises:
        UserError: It is not plain NMS, or something in it has no ONNX operator.
    """

    def __init__(self, nms_config: dict | None, class_count: int, limit: int) -> None:
        super().__init__()
        config = dict(nms_config or {})
        unknown = sorted(set(config) - _NMS_KEYS)
        if config.get('type') != 'nms' or unknown or limit < 1:
            what = f'{", ".join(unknown)} in ' if unknown else ''
            raise UserError(
                f'the suppression {what}{config or None} with at most {limit} boxes cannot be '
                "exported to ONNX; use nms=dict(type='nms', iou_threshold=...) and a positive "
                'max_per_img in test_cfg.'
            )
        self.iou_threshold = float(config.get('iou_threshold', config.get('iou_thr', 0.5)))
        self.class_agnostic = bool(config.get('class_agnostic', False))
        self.class_count = class_count
        self.limit = limit

    def forward(self, found: Boxes) -> Boxes:
        """Suppresses.

        Returns:
            The best first; at most ``limit`` per image. Where an image has fewer than another
            number of boxes, the rest have score 0 and label -1.
        """
        kept = self._kept(found)
        limit = at_most(self.limit, kept, dim=1)
        scores, index = kept.topk(limit)
        there = scores > NO_SCORE
        boxes = take(found.boxes, index)
        return Boxes(
            torch.where(there.unsqueeze(-1), boxes, torch.zeros_like(boxes)),
            torch.where(there, scores, torch.zeros_like(scores)),
            torch.where(there, found.labels.gather(1, index), torch.full_like(index, -1)),
        )

    def _kept(self, found: Boxes) -> Tensor:
        """Returns the scores, with ``NO_SCORE`` for every suppressed box."""
        per_class = found.scores.unsqueeze(1)
        if not self.class_agnostic:
            classes = torch.arange(self.class_count).view(1, -1, 1)
            own = found.labels.unsqueeze(1) == classes
            per_class = torch.where(own, per_class, torch.full_like(per_class, NO_SCORE))
        selected = _NonMaxSuppression.apply(found.boxes, per_class, self.iou_threshold)
        # Each box has one class, so that image and box name it. No shape of `selected` is asked
        # for: the tracer would take the number of boxes of its example for a constant.
        size = torch._shape_as_tensor(found.scores)
        position = selected[:, 0] * size[1] + selected[:, 2]
        flat = found.scores.reshape(-1)
        flags = (flat * 0).scatter(0, position, (position * 0 + 1).to(flat))
        return torch.where(flags > 0, flat, flat * 0 + NO_SCORE).reshape(found.scores.shape)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Picks rows of each image: (B, N, D) at (B, K) gives (B, K, D)."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def at_most(limit: int, values: Tensor, dim: int) -> Tensor:
    """Returns ``limit``, or the size of a dimension where that is smaller, as part of the graph."""
    return torch.minimum(torch.tensor(limit), torch._shape_as_tensor(values)[dim])


class _NonMaxSuppression(Function):
    """The ONNX operator NonMaxSuppression of opset 11.

    Boxes (B, M, 4) and scores (B, C, M) with an IoU threshold give rows of image, class and box,
    (K, 3), of the boxes that are kept and have a score above 0.
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        rows = [torch.zeros(0, 3, dtype=torch.long)]
        for image, label in torch.cartesian_prod(*map(torch.arange, scores.shape[:2])).tolist():
            own = (scores[image, label] > 0).nonzero().squeeze(1)
            kept = own[nms(boxes[image, own], scores[image, label, own], iou_threshold)]
            place = torch.tensor([image, label]).expand(len(kept), 2)
            rows.append(torch.cat([place, kept.unsqueeze(1)], dim=1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou_threshold: float) -> Any:
        limit = g.op('Constant', value_t=torch.tensor([_NO_LIMIT]))
        overlap = g.op('Constant', value_t=torch.tensor([iou_threshold]))
        least = g.op('Constant', value_t=torch.tensor([0.0]))
        return g.op('NonMaxSuppression', boxes, scores, limit, overlap, least)
