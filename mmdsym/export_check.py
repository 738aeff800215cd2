"""Proof that an exported detector predicts what the network in training predicts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmcv import imwrite
from mmcv.transforms import Compose
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.utils import get_test_pipeline_cfg
from mmengine import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdsym.test_images import paths_of_test_images
from mmdsym.trained_run import (
    TrainedRun,
    dataloader_for_testing,
    load_strictly,
)


@dataclass(frozen=True)
class Comparison:
    """How an exported detector's predictions differ from those of the network in training.

    Attributes:
        images: Number of images.
        boxes: Number of boxes that the trained network predicted on them.
        difference: Largest difference of a box coordinate (pixels) or score; ``inf`` when the
            boxes differ in number or class.
        random: Whether the images were random noise, for want of test images.
        below_threshold: Whether boxes of every score were compared, since none was above the
            detector's own threshold.
    """

    images: int
    boxes: int
    difference: float
    random: bool
    below_threshold: bool = False


def compare_predictions(
    run: TrainedRun, which: str, config_path: Path, checkpoint_path: Path, count: int = 4
) -> Comparison:
    """Compares the predictions of an exported detector with those of the network in training.

    Args:
        run: The run, its model built as in training.
        which: ``'teacher'`` or ``'student'``.
        config_path: Exported config.
        checkpoint_path: Exported checkpoint.
        count: Number of test images to look at.
    """
    detector = init_detector(str(config_path), str(checkpoint_path), device='cpu')
    with tempfile.TemporaryDirectory() as folder:
        images = paths_of_test_images(run.config, count)
        random = not images
        if random:
            images = [Path(folder) / 'random.png']
            noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
            imwrite(noise, str(images[0]))
        expected = list(_predict_in_training(run, which, images))
        found = [inference_detector(detector, str(path)).pred_instances for path in images]
    difference = max(_difference(a, b) for a, b in zip(expected, found, strict=True))
    return Comparison(len(images), sum(map(len, expected)), difference, random)


def _predict_in_training(
    run: TrainedRun, which: str, images: Sequence[Path]
) -> Iterator[InstanceData]:
    """Predicts with the model, data preprocessor and test pipeline of the training config."""
    init_default_scope(run.config.get('default_scope') or 'mmdet')
    # Detectors write into the config that they are built from.
    model = MODELS.build(deepcopy(run.config.model))
    load_strictly(model, run.checkpoint['state_dict'], run)
    network = (getattr(model, which) if run.is_pair else model).eval()
    config = Config(dict(test_dataloader=dataloader_for_testing(run.config)))
    pipeline = Compose(get_test_pipeline_cfg(config))
    for path in images:
        batch = pseudo_collate([pipeline(dict(img_path=str(path), img_id=0))])
        with torch.no_grad():
            data = model.data_preprocessor(batch, False)
            yield network(**data, mode='predict')[0].pred_instances


def _difference(expected: InstanceData, found: InstanceData) -> float:
    if len(expected) != len(found) or not torch.equal(expected.labels, found.labels):
        return float('inf')
    if not len(expected):
        return 0.0
    boxes = (expected.bboxes - found.bboxes).abs().max()
    return max(boxes.item(), (expected.scores - found.scores).abs().max().item())
