"""The candidates of a two-stage detector: proposals, their features, their boxes per class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import BBoxHead, SingleRoIExtractor, StandardRoIHead
from torch import Tensor, nn
from torchvision.ops import roi_align

from .dense_head import DenseCandidates, decode
from .suppression import NO_SCORE, Boxes, Suppression


def is_plain_two_stage(detector: nn.Module) -> bool:
    """Whether a detector predicts boxes as MMDetection's Faster R-CNN does."""
    roi_head = getattr(detector, 'roi_head', None)
    if type(roi_head) is not StandardRoIHead or roi_head.with_mask:
        return False
    head, extractor = roi_head.bbox_head, roi_head.bbox_roi_extractor
    return (
        type(detector.rpn_head) is RPNHead
        and isinstance(head, BBoxHead)
        and type(head)._predict_by_feat_single is BBoxHead._predict_by_feat_single
        and not head.custom_cls_channels
        and head.with_reg
        and not roi_head.with_shared_head
        and type(extractor) is SingleRoIExtractor
        and all(type(layer) is RoIAlign for layer in extractor.roi_layers)
        and all(layer.pool_mode == 'avg' for layer in extractor.roi_layers)
    )


class TwoStageCandidates(nn.Module):
    """Every proposal as a candidate of each class.

    Args:
        detector: One for which :func:`is_plain_two_stage` holds.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        rpn = detector.test_cfg.rpn
        self.proposals = DenseCandidates(detector.rpn_head, rpn, by_level=True)
        levels = len(detector.rpn_head.prior_generator.strides)
        self.suppression = Suppression(rpn.nms, levels, rpn.max_per_img)
        self.extractor = detector.roi_head.bbox_roi_extractor
        self.head = detector.roi_head.bbox_head
        self.score_threshold = float(detector.test_cfg.rcnn.score_thr)
        self.class_count = self.head.num_classes

    def forward(self, features: Sequence[Tensor], frame: Tensor) -> Boxes:
        """Finds candidates; arguments as for :class:`DenseCandidates`."""
        found = self.suppression(self.proposals(features, frame))
        batch, count = (torch._shape_as_tensor(found.scores)[i] for i in (0, 1))
        image = torch.arange(batch).view(-1, 1, 1) + 0 * found.boxes[..., :1]
        rois = torch.cat([image, found.boxes], dim=-1).flatten(0, 1)
        logits, deltas = self.head(self._roi_features(features, rois))
        scores = logits.softmax(-1)[:, :-1].reshape(batch, -1, self.class_count)
        real = (scores > self.score_threshold) & (found.scores > 0).unsqueeze(-1)
        scores = torch.where(real, scores, torch.full_like(scores, NO_SCORE))
        deltas = deltas.reshape(batch, count, -1, 4).expand(-1, -1, self.class_count, -1)
        priors = found.boxes.unsqueeze(2).expand_as(deltas)
        boxes = decode(self.head.bbox_coder, priors.flatten(1, 2), deltas.flatten(1, 2), frame)
        labels = torch.arange(self.class_count).expand_as(scores)
        return Boxes(boxes, scores.flatten(1), labels.flatten(1))

    def _roi_features(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Takes each proposal's features, (K, C, h, w), from the level that suits its size.

        Every level looks at all proposals, so that no number in the graph depends on the image;
        instead of those of other levels it looks at one cell, which costs one sample per bin.
        """
        layers = self.extractor.roi_layers
        level = self.extractor.map_roi_levels(rois, len(layers))
        # A proposal without an area, such as padding, has no features: runtimes disagree there.
        real = (rois[:, 3:] > rois[:, 1:3]).all(dim=1)
        total = 0
        for number, (layer, feature) in enumerate(zip(layers, features, strict=False)):
            own = ((level == number) & real).unsqueeze(1)
            cell = torch.tensor([0.0, 0.0, 1.0, 1.0]) / layer.spatial_scale
            here = torch.cat([rois[:, :1], torch.where(own, rois[:, 1:], cell)], dim=1)
            pooled = roi_align(
                feature,
                here,
                layer.output_size,
                layer.spatial_scale,
                layer.sampling_ratio,
                layer.aligned,
            )
            total = total + pooled * own.to(pooled).view(-1, 1, 1, 1)
        return total
