"""The candidates of a dense head, before suppression, exactly as MMDetection finds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from .suppression import NO_SCORE, Boxes, at_most, take

_PARTS = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')


def is_plain_dense_head(head: nn.Module) -> bool:
    """Whether a head predicts as MMDetection's dense heads do by default.

    True for RetinaNet, ATSS, FCOS, RTMDet and whatever else changes nothing in the way from
    feature maps to boxes.
    """
    return (
        isinstance(head, BaseDenseHead)
        and all(getattr(type(head), part) is getattr(BaseDenseHead, part) for part in _PARTS)
        and not getattr(head.loss_cls, 'custom_cls_channels', False)
    )


class DenseCandidates(nn.Module):
    """Per level of the pyramid the best pairs of prior and class, decoded and clipped.

    Priors and coder are the head's own, so that the boxes are as well.

    Args:
        head: One for which :func:`is_plain_dense_head` holds, or a plain RPN head.
        test_config: What the detector's ``test_cfg`` says of this head.
        by_level: Whether labels name the level instead of the class: an RPN head suppresses level
            by level.
    """

    def __init__(self, head: BaseDenseHead, test_config: dict, by_level: bool = False) -> None:
        super().__init__()
        self.head = head
        self.by_level = by_level
        self.score_threshold = 0.0 if by_level else float(test_config.get('score_thr', 0))
        self.per_level = int(test_config.get('nms_pre', -1))
        self.least_size = float(test_config.get('min_bbox_size', -1))
        self.class_count = head.num_classes

    def forward(self, features: Sequence[Tensor], frame: Tensor) -> Boxes:
        """Finds candidates.

        Args:
            features: The pyramid, each level (B, C, H, W).
            frame: From :func:`mmdsym.deployment.normalisation.frame_of`.
        """
        logits, deltas, *factors = self.head(features)
        factors = factors[0] if factors else [None] * len(logits)
        sizes = [level.shape[-2:] for level in logits]
        priors = self.head.prior_generator.grid_priors(sizes, torch.float32, features[0].device)
        inputs = zip(logits, deltas, factors, priors, strict=True)
        levels = [self._level(number, *level) for number, level in enumerate(inputs)]
        encoded, own_priors, scores, labels = (torch.cat(p, 1) for p in zip(*levels, strict=True))
        boxes = decode(self.head.bbox_coder, own_priors, encoded, frame)
        if self.least_size >= 0:
            there = (boxes[..., 2:] - boxes[..., :2] > self.least_size).all(dim=-1)
            scores = torch.where(there, scores, torch.full_like(scores, NO_SCORE))
        return Boxes(boxes, scores, labels)

    def _level(
        self, number: int, logits: Tensor, deltas: Tensor, factors: Tensor | None, priors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns encoded boxes, priors, scores and labels of a level's candidates."""
        activated = class_scores(self.head, rows(logits, self.head.cls_out_channels))
        flat = activated.flatten(1)
        limit = at_most(self.per_level, flat, dim=1) if self.per_level > 0 else flat.shape[1]
        scores, index = flat.topk(limit)
        prior = torch.div(index, self.class_count, rounding_mode='trunc')
        # The threshold counts before the factor (centerness), as in MMDetection.
        there = scores > self.score_threshold
        if factors is not None:
            scores = scores * rows(factors, 1).flatten(1).sigmoid().gather(1, prior)
        scores = torch.where(there, scores, torch.full_like(scores, NO_SCORE))
        encoded = take(rows(deltas, self.head.bbox_coder.encode_size), prior)
        label = (
            torch.full_like(index, number) if self.by_level else index - prior * self.class_count
        )
        return encoded, get_box_tensor(priors)[prior], scores, label


def rows(level: Tensor, channels: int) -> Tensor:
    """Turns a map (B, A * C, H, W) into rows in the order of priors, (B, H * W * A, C)."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, channels)


def class_scores(head: BaseDenseHead, logits: Tensor) -> Tensor:
    """Turns logits (B, N, C) into scores per class, without one for the background."""
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]


def decode(coder: object, priors: Tensor, encoded: Tensor, frame: Tensor) -> Tensor:
    """Decodes boxes with a detector's own coder and clips them as it does.

    Args:
        coder: MMDetection's box coder.
        priors: (B, M, 4), or (B, M, 2) for points.
        encoded: (B, M, 4).
        frame: From :func:`mmdsym.deployment.normalisation.frame_of`.

    Returns:
        (B, M, 4).
    """
    # Coders clip to plain numbers; here the size of images is part of the graph.
    flat = coder.decode(priors.flatten(0, 1), encoded.flatten(0, 1), max_shape=None)
    boxes = get_box_tensor(flat).reshape(encoded.shape)
    if not getattr(coder, 'clip_border', True):
        return boxes
    return torch.minimum(boxes.clamp(min=0), frame)
