"""What a trained run sees on an image: boxes, and its own description of the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmdsym.errors import UserError
from mmdsym.export import build_plain_detector
from mmdsym.trained_run import TrainedRun


@dataclass(frozen=True)
class Look:
    """What was seen on one image.

    Attributes:
        size: (width, height) in pixels.
        teacher: ``bboxes`` (N, 4) in pixels of the image, ``scores`` and ``labels`` (N,); of a
            plain run its only detector's.
        student: Likewise; ``None`` for a plain run.
        feature: (D,), see :func:`pool_features`.
    """

    size: tuple[int, int]
    teacher: InstanceData
    student: InstanceData | None
    feature: Tensor


class Observer:
    """Looks at images through the detectors of a run.

    Args:
        run: A teacher-student pair or a plain detector.
    """

    def __init__(self, run: TrainedRun) -> None:
        self.teacher = build_plain_detector(run, 'teacher')
        self.student = build_plain_detector(run, 'student') if run.is_pair else None
        self._pipeline = Compose(get_test_pipeline_cfg(self.teacher.cfg))

    def look(self, path: Path) -> Look:
        """Returns what both detectors see on an image.

        Raises:
            UserError: The image cannot be read.
        """
        with features_shown(self.teacher) as levels:
            sample = self._detect(self.teacher, path)
        student = None if self.student is None else self._detect(self.student, path)
        height, width = sample.ori_shape
        return Look(
            size=(width, height),
            teacher=_boxes_of(sample),
            student=None if student is None else _boxes_of(student),
            feature=pool_features(levels, _filled_share(sample)),
        )

    def feature(self, path: Path) -> Tensor:
        """Returns the description of an image alone, (D,).

        Raises:
            UserError: The image cannot be read.
        """
        with features_shown(self.teacher) as levels:
            sample = self._detect(self.teacher, path)
        return pool_features(levels, _filled_share(sample))

    def _detect(self, detector: nn.Module, path: Path) -> DetDataSample:
        try:
            return inference_detector(detector, str(path), test_pipeline=self._pipeline)
        # OpenCV gives nothing for what it cannot decode, and MMCV then asserts.
        except (OSError, AssertionError, AttributeError, TypeError, cv2.error) as error:
            raise UserError(
                f'the image {path} cannot be read ({type(error).__name__}): restore it, or prepare '
                'the data again with --fix.'
            ) from error


@contextmanager
def features_shown(detector: nn.Module) -> Iterator[list[Tensor]]:
    """Lets the backbone report its levels of the last image, for as long as the context lasts.

    Yields:
        A list that holds (1, C, H, W) of each level after the detector was called.
    """
    levels: list[Tensor] = []

    def remember(module: nn.Module, inputs: object, outputs: Sequence[Tensor] | Tensor) -> None:
        levels[:] = [outputs] if isinstance(outputs, Tensor) else list(outputs)

    handle = detector.backbone.register_forward_hook(remember)
    try:
        yield levels
    finally:
        handle.remove()


def pool_features(levels: Sequence[Tensor], filled: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Describes an image by the mean of each channel, every level counting alike.

    Args:
        levels: (1, C, H, W) each.
        filled: Shares of height and width that the image fills; the rest is padding.

    Returns:
        (D,), a unit vector; D is the number of channels of all levels.
    """
    pooled = []
    for level in levels:
        height, width = level.shape[-2:]
        rows = max(1, round(height * filled[0]))
        columns = max(1, round(width * filled[1]))
        means = level[0, :, :rows, :columns].float().mean(dim=(1, 2))
        pooled.append(normalize(means, dim=0))
    return normalize(torch.cat(pooled), dim=0)


def _filled_share(sample: DetDataSample) -> tuple[float, float]:
    padded = sample.get('batch_input_shape') or sample.img_shape
    height, width = sample.img_shape[:2]
    return height / padded[0], width / padded[1]


def _boxes_of(sample: DetDataSample) -> InstanceData:
    found = sample.pred_instances
    return InstanceData(
        bboxes=found.bboxes.float().cpu(),
        scores=found.scores.float().cpu(),
        labels=found.labels.long().cpu(),
    )
