"""A detector as one graph, from RGB pixels to boxes."""

from __future__ import annotations

import torch
from mmdet.models import SingleStageDetector, TwoStageDetector
from torch import Tensor, nn

from mmdsym.errors import UserError

from .dense_head import DenseCandidates, is_plain_dense_head
from .normalisation import Normalisation, frame_of
from .query_head import NoSuppression, QueryBoxes, is_plain_query_detector
from .suppression import Boxes, Suppression
from .two_stage import TwoStageCandidates, is_plain_two_stage


class DetectorGraph(nn.Module):
    """What is exported: normalisation, network, candidates and, if wanted, suppression.

    Args:
        detector: A plain detector in evaluation mode.
        suppress: Whether the graph itself suppresses overlapping boxes.

    Raises:
        UserError: The detector predicts in a way that is unknown here.
    """

    def __init__(self, detector: nn.Module, suppress: bool = True) -> None:
        super().__init__()
        self.detector = detector
        self.normalisation = Normalisation(detector.data_preprocessor)
        self.candidates, self.test_config = _candidates_of(detector)
        # Made in any case: whoever suppresses outside follows the same settings.
        self.suppression = _suppression_of(self.candidates, self.test_config)
        self.suppress = suppress
        if not suppress and self.suppression.iou_threshold is None:
            raise UserError(
                f'{type(detector).__name__} has no suppression that could be left out; use --onnx '
                'instead of --onnx-raw.'
            )

    @property
    def takes_any_size(self) -> bool:
        """Whether batch and size of the images may vary."""
        return not isinstance(self.candidates, QueryBoxes)

    def forward(self, image: Tensor) -> Boxes:
        """Detects.

        Args:
            image: RGB pixels, (B, 3, H, W), uint8, resized as the detector wants them.

        Returns:
            Boxes in pixels of ``image``. Suppressed: the best first, padded with score 0 and
            label -1. Otherwise: all candidates in no order, score -1 where there is none.
        """
        pixels = self.normalisation(image)
        features = self.detector.extract_feat(pixels)
        if self.takes_any_size:
            found = self.candidates(features, frame_of(image))
        else:
            padded = tuple(int(side) for side in pixels.shape[-2:])
            found = self.candidates(features, frame_of(image), padded)
        return self.suppression(found) if self.suppress else found


def _candidates_of(detector: nn.Module) -> tuple[nn.Module, dict]:
    kind = type(detector)
    if (
        isinstance(detector, SingleStageDetector)
        and kind.predict is SingleStageDetector.predict
        and is_plain_dense_head(detector.bbox_head)
    ):
        _refuse_least_size(detector.test_cfg)
        return DenseCandidates(detector.bbox_head, detector.test_cfg), detector.test_cfg
    if (
        isinstance(detector, TwoStageDetector)
        and kind.predict is TwoStageDetector.predict
        and is_plain_two_stage(detector)
    ):
        return TwoStageCandidates(detector), detector.test_cfg.rcnn
    if is_plain_query_detector(detector):
        return QueryBoxes(detector), detector.test_cfg or {}
    head = type(getattr(detector, 'bbox_head', None) or getattr(detector, 'roi_head', None))
    raise UserError(
        f'{kind.__name__} with {head.__name__} cannot be exported to ONNX, only dense detectors '
        'that predict as RetinaNet, ATSS, FCOS and RTMDet do, Faster R-CNN and (Deformable) DETR; '
        'deploy this one with MMDetection (leave out --onnx and --onnx-raw).'
    )


def _suppression_of(candidates: nn.Module, test_config: dict) -> nn.Module:
    if isinstance(candidates, QueryBoxes):
        return NoSuppression(candidates.limit)
    limit = int(test_config.get('max_per_img', -1))
    return Suppression(test_config.get('nms'), candidates.class_count, limit)


def _refuse_least_size(test_config: dict) -> None:
    size = test_config.get('min_bbox_size', -1)
    if size > 0:
        raise UserError(
            f'min_bbox_size={size} counts pixels of the original image, which an ONNX graph does '
            'not know; set it to 0 in test_cfg.'
        )


def zeros_like_image(width: int, height: int, batch: int = 1) -> Tensor:
    """Returns black images (batch, 3, height, width), uint8, to trace a graph with."""
    return torch.zeros(batch, 3, height, width, dtype=torch.uint8)
