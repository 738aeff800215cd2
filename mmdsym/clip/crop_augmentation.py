"""How labelled crops vary in training: in extent, orientation and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

_SMALLEST_SIDE = 4.0


@dataclass(frozen=True)
class CropAugmentation:
    """What a defect may look like and still be the same defect.

    Args:
        light_jitter: Standard deviation of a border's shift for about half of the crops, in units
            of the box's side: as uncertain as a label is.
        strong_jitter: Largest one of the others: as wrong as a detector's boxes are.
        orientations: Whether crops are flipped and transposed; a strip may pass the camera in any
            direction.
        brightness: Largest shift, in units of 0..255 divided by 255.
        contrast: Largest relative change of contrast.
        noise: Largest standard deviation of added noise, in the units of ``brightness``.
    """

    light_jitter: float = 0.04
    strong_jitter: float = 0.3
    orientations: bool = True
    brightness: float = 0.15
    contrast: float = 0.3
    noise: float = 0.02

    def jitter(
        self, box: np.ndarray, image_size: tuple[int, int], generator: np.random.Generator
    ) -> np.ndarray:
        """Moves each border of a box by itself, within the image.

        Args:
            box: (4,), x1 y1 x2 y2 in pixels.
            image_size: (width, height) in pixels.
            generator: Draws the shifts.

        Returns:
            (4,), of at least four pixels a side where the box is; otherwise the box.
        """
        light = generator.random() < 0.5
        strength = self.light_jitter
        if not light:
            strength = generator.uniform(self.light_jitter, self.strong_jitter)
        sides = np.tile(box[2:] - box[:2], 2)
        moved = box + generator.normal(0, strength, 4) * sides
        moved = np.clip(moved, 0, np.tile(image_size, 2))
        too_small = (moved[2:] - moved[:2] < _SMALLEST_SIDE).any()
        return box if too_small else moved

    def turn(
        self, crops: Tensor, offsets: np.ndarray, generator: np.random.Generator
    ) -> tuple[Tensor, np.ndarray]:
        """Gives crops one of eight orientations, and :func:`edge_offsets` the same.

        Args:
            crops: (..., size, size).
            offsets: (4,), left, top, right, bottom.
            generator: Draws the orientation.
        """
        if not self.orientations:
            return crops, offsets
        left_right, up_down, swap = generator.random(3) < 0.5
        if left_right:
            crops, offsets = crops.flip(-1), offsets[[2, 1, 0, 3]] * [-1, 1, -1, 1]
        if up_down:
            crops, offsets = crops.flip(-2), offsets[[0, 3, 2, 1]] * [1, -1, 1, -1]
        if swap:
            crops, offsets = crops.transpose(-1, -2), offsets[[1, 0, 3, 2]]
        return crops, offsets

    def relight(self, crops: Tensor, generator: np.random.Generator) -> Tensor:
        """Changes brightness, contrast and noise of crops in 0..255; all channels alike."""
        mean = crops.mean()
        contrast = 1 + generator.uniform(-self.contrast, self.contrast)
        brightness = 255 * generator.uniform(-self.brightness, self.brightness)
        deviation = 255 * generator.uniform(0, self.noise)
        shape = (crops.shape[0], 1, *crops.shape[2:])
        noise = torch.from_numpy(generator.normal(0, deviation, shape)).to(crops)
        return ((crops - mean) * contrast + mean + brightness + noise).clamp(0, 255)


def edge_offsets(box: np.ndarray, true_box: np.ndarray) -> np.ndarray:
    """Returns how far the true borders lie from a box's own, in units of its sides.

    Args:
        box: (4,), x1 y1 x2 y2, of positive area.
        true_box: (4,).

    Returns:
        (4,): left, top, right, bottom; positive to the right and downwards.
    """
    return (true_box - box) / np.tile(box[2:] - box[:2], 2)


def best_overlap(box: np.ndarray, others: np.ndarray) -> tuple[float, int]:
    """Returns the largest IoU of a box, (4,), with others, (N, 4), and which of them has it."""
    overlaps = bbox_overlaps(torch.from_numpy(box)[None], torch.from_numpy(others))[0]
    best = int(overlaps.argmax())
    return float(overlaps[best]), best
