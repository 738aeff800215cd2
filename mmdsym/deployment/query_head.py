"""The boxes of a DETR-like detector: one per query, nothing to suppress."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models import DETR, DeformableDETR
from mmdet.models.dense_heads import DeformableDETRHead, DETRHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from mmdsym.errors import UserError

from .suppression import Boxes, take


def is_plain_query_detector(detector: nn.Module) -> bool:
    """Whether a detector predicts as MMDetection's DETR or Deformable DETR does."""
    return (
        type(detector) in (DETR, DeformableDETR)
        and type(detector.bbox_head) in (DETRHead, DeformableDETRHead)
        and detector.bbox_head.loss_cls.use_sigmoid
    )


class QueryBoxes(nn.Module):
    """The best pairs of query and class. Its graph holds for one size of images alone.

    Args:
        detector: One for which :func:`is_plain_query_detector` holds.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector
        self.class_count = detector.bbox_head.num_classes
        pairs = detector.num_queries * self.class_count
        config = detector.test_cfg or {}
        self.limit = min(int(config.get('max_per_img', detector.num_queries)), pairs)

    def forward(self, features: Sequence[Tensor], frame: Tensor, padded: tuple[int, int]) -> Boxes:
        """Finds boxes, the best first.

        Args:
            features: The pyramid, each level (B, C, H, W).
            frame: From :func:`mmdsym.deployment.normalisation.frame_of`.
            padded: Height and width of the network's input.

        Raises:
            UserError: Images are padded. MMDetection masks padding out, but not in ONNX.
        """
        width, height = (int(side) for side in frame[:2])
        if (height, width) != padded:
            raise UserError(
                f'images of {width}x{height} are padded to {padded[1]}x{padded[0]}, which '
                f'{type(self.detector).__name__} cannot be told in ONNX; set keep_ratio=False and '
                f'a scale such as {padded[1], padded[0]} in the Resize of the test pipeline.'
            )
        meta = dict(img_shape=(height, width), batch_input_shape=padded, pad_shape=padded)
        samples = [DetDataSample(metainfo=meta)] * len(features[0])
        inputs = self.detector.forward_transformer(features, samples)
        logits, encoded = (layers[-1] for layers in self.detector.bbox_head(**inputs)[:2])
        scores, index = logits.sigmoid().flatten(1).topk(self.limit)
        query = torch.div(index, self.class_count, rounding_mode='trunc')
        boxes = bbox_cxcywh_to_xyxy(take(encoded, query)) * frame
        boxes = torch.minimum(boxes.clamp(min=0), frame)
        return Boxes(boxes, scores, index - query * self.class_count)


class NoSuppression(nn.Module):
    """Stands where other detectors suppress, and leaves the boxes as they are.

    Args:
        limit: Number of boxes per image.
    """

    iou_threshold = None
    class_agnostic = False

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, found: Boxes) -> Boxes:
        """Returns what it gets."""
        return found
