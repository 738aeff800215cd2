"""Tells the classes of defects, and clean surface, from crops; trained on real labelled ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmdsym.atomic_file import write_file
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import HeldOutQuality, judge

from .crop_features import CropFeatures
from .crop_set import CropSet, collect_crops
from .labelled_images import LabelledImages
from .linear_probe import FittedProbe, LinearProbe, fit_cross_validated

_PROBE = ('centre', 'scale', 'weight', 'bias')


class CropClassifier:
    """A linear probe on ImageNet features of crops in two contexts, averaged over quarter turns.

    It is fitted when it is first asked, or read from ``cache_file`` if that holds the probe of
    the very same images, labels and features.

    Args:
        images: The labelled images to learn from.
        cache_file: ``.safetensors`` file that keeps the fitted probe; ``None`` fits anew.
        features: What it sees of a crop.

    Raises:
        UserError: The images have no labelled box.
    """

    def __init__(
        self,
        images: LabelledImages,
        cache_file: str | Path | None = None,
        features: CropFeatures | None = None,
    ) -> None:
        self.crops = collect_crops(images)
        if not (self.crops.labels < len(images.classes)).any():
            raise UserError(
                'the crop classifier has no labelled box to learn from: prepare the data with a '
                'larger label fraction.'
            )
        self.cache_file = None if cache_file is None else Path(cache_file)
        self.features = features or CropFeatures(contexts=(1.1, 1.6), turned=True)

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns of the probabilities mean: the classes, then clean surface."""
        return self.crops.names

    @cached_property
    def fingerprint(self) -> str:
        """Of all that it learns from and of how it sees."""
        images = self.crops.images
        parts = ['crop classifier 1', self.features.fingerprint]
        parts += [images.labels_digest, images.pixels_digest]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def probabilities(self, images: Iterable[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        """Judges one crop of each image.

        Args:
            images: N images of shape (H, W, 3), uint8, RGB.
            boxes: (N, 4), x1 y1 x2 y2 in pixels.

        Returns:
            (N, classes + 1), rows summing to 1; the last column is clean surface.
        """
        return self._fitted.probe.probabilities(self.features.extract(images, boxes)).numpy()

    def judge(self, crops: CropSet) -> np.ndarray:
        """Returns the probabilities (N, classes + 1) of other labelled crops."""
        return self.probabilities(crops.pixels(), crops.boxes)

    def own_probabilities(self, label: int) -> np.ndarray:
        """Returns the probability of their class that real crops of a class get.

        Each crop is judged by a probe that was fitted without its image.

        Args:
            label: Class index; the number of classes stands for clean surface.
        """
        return self._fitted.held_out.numpy()[self.crops.labels == label, label]

    @cached_property
    def held_out(self) -> HeldOutQuality:
        """How right it is on real crops, each judged by a probe fitted without its image."""
        return judge(self._fitted.held_out, torch.from_numpy(self.crops.labels))

    @cached_property
    def _fitted(self) -> FittedProbe:
        found = self._read()
        if found is not None:
            return found
        fitted = fit_cross_validated(
            self.features.extract(self.crops.pixels(), self.crops.boxes),
            torch.from_numpy(self.crops.labels),
            self.crops.index,
            len(self.names),
        )
        if self.cache_file is not None:
            tensors = {name: getattr(fitted.probe, name) for name in _PROBE}
            tensors['held_out'] = fitted.held_out
            content = {name: tensor.contiguous() for name, tensor in tensors.items()}
            write_file(self.cache_file, save(content, {'fingerprint': self.fingerprint}))
        return fitted

    def _read(self) -> FittedProbe | None:
        """Returns the kept probe; ``None`` where there is none, or one of something else."""
        if self.cache_file is None or not self.cache_file.is_file():
            return None
        try:
            with safe_open(self.cache_file, framework='pt') as stored:
                if (stored.metadata() or {}).get('fingerprint') != self.fingerprint:
                    return None
                tensors: dict[str, Tensor] = {name: stored.get_tensor(name) for name in _PROBE}
                return FittedProbe(LinearProbe(**tensors), stored.get_tensor('held_out'))
        except (SafetensorError, OSError):
            return None  # damaged: it is fitted again
