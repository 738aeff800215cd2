"""A trained detector on images that are much larger than what it was trained on, through SAHI."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine import Config

from mmdsym.errors import UserError
from mmdsym.export import plain_checkpoint, plain_config
from mmdsym.tiling.detections import Detections
from mmdsym.tiling.grid import Tiling, require_sahi
from mmdsym.trained_run import TrainedRun

MERGES = {'nms': 'NMS', 'greedy-nmm': 'GREEDYNMM', 'nmm': 'NMM'}
"""Ways of merging, and what SAHI calls them."""


@dataclass(frozen=True)
class Merging:
    """What becomes of boxes of one class that tiles found in the same place.

    Args:
        kind: `'nms'` keeps the best of them. `'greedy-nmm'` and `'nmm'` unite them into a larger
            one, for defects that no tile shows as a whole; small ones grow too large by it.
        threshold: Boxes that share more than this part of the smaller one are the same, in (0, 1].

    Raises:
        UserError: The kind is unknown or the threshold out of its range.
    """

    kind: str = 'nms'
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in MERGES:
            raise UserError(f"boxes cannot be merged by '{self.kind}'; use {', '.join(MERGES)}.")
        if not 0 < self.threshold <= 1:
            raise UserError(
                f'a merging threshold of {self.threshold:g} is outside (0, 1]; 0.5 takes boxes for '
                'the same that share half of the smaller one.'
            )


class TiledDetector:
    """One network of a trained run that looks at tiles or at a whole image.

    Args:
        run: From :func:`mmdsym.trained_run.load_run`.
        which: `'teacher'` or `'student'`; without meaning for a plain detector.
        least_score: Boxes with a lower score are dropped before they are merged, in [0, 1].
        long_side: Pixels to which the longer side of what the detector sees is scaled; by default
            what the run's test pipeline says.

    Raises:
        UserError: SAHI is not installed, or the run is not complete.
    """

    def __init__(
        self,
        run: TrainedRun,
        which: str = 'teacher',
        least_score: float = 0.05,
        long_side: int | None = None,
    ) -> None:
        require_sahi()
        self.classes = run.classes
        self._model = _sahi_model(run, which, least_score, long_side)

    def on_tiles(
        self, path: Path, tiling: Tiling, merging: Merging, with_whole: bool = False
    ) -> Detections:
        """Detects on each tile and merges.

        Args:
            path: The image.
            tiling: Where tiles lie.
            merging: What becomes of boxes that two tiles found.
            with_whole: Whether the whole image, shrunk, is looked at too, for defects that are
                larger than a tile.

        Raises:
            UserError: The image cannot be read.
        """
        from sahi.predict import get_sliced_prediction

        result = get_sliced_prediction(
            _read(path),
            self._model,
            slice_height=tiling.size,
            slice_width=tiling.size,
            overlap_height_ratio=tiling.overlap,
            overlap_width_ratio=tiling.overlap,
            perform_standard_pred=with_whole,
            postprocess_type=MERGES[merging.kind],
            postprocess_match_metric='IOS',
            postprocess_match_threshold=merging.threshold,
            verbose=0,
        )
        return _detections(result)

    def on_whole(self, path: Path) -> Detections:
        """Detects on the image as a whole.

        Raises:
            UserError: The image cannot be read.
        """
        from sahi.predict import get_prediction

        return _detections(get_prediction(_read(path), self._model))


def _sahi_model(run: TrainedRun, which: str, least_score: float, long_side: int | None) -> Any:
    from sahi.models.mmdet import MmdetDetectionModel

    # SAHI loads weights from a file.
    with tempfile.TemporaryDirectory(prefix='mmdsym-') as folder:
        weights = Path(folder) / 'detector.pth'
        torch.save(plain_checkpoint(run, which), weights)
        try:
            return MmdetDetectionModel(
                model_path=str(weights),
                config_path=_config_for_sahi(run),
                confidence_threshold=least_score,
                image_size=long_side,
            )
        except ValueError as error:
            raise UserError(
                f"'{run.config_path}' has a test pipeline that SAHI cannot use ({error}); give it "
                'LoadImageFromFile and Resize.'
            ) from error


def _config_for_sahi(run: TrainedRun) -> Config:
    config = plain_config(run)
    dataset = config.test_dataloader.dataset
    # There are no labels to load; and SAHI asks the training data whether there are masks.
    dataset.pipeline = [step for step in dataset.pipeline if 'Annotations' not in step['type']]
    config.train_dataloader = dict(dataset=dict(type='CocoDataset', pipeline=[]))
    return config


def _read(path: Path) -> np.ndarray:
    """Reads an image as training does, in the order of colours that SAHI expects."""
    pixels = mmcv.imread(str(path)) if path.is_file() else None
    if pixels is None:
        raise UserError(f"the image '{path}' cannot be read; repair or remove it.")
    return mmcv.bgr2rgb(pixels)


def _detections(result: Any) -> Detections:
    return Detections.of(
        [
            (found.bbox.to_xyxy(), found.score.value, found.category.id)
            for found in result.object_prediction_list
        ]
    )
