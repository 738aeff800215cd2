"""Copy-paste: the simplest synthesiser, and what diffusion has to beat."""

from __future__ import annotations

import json
from collections.abc import Sequence

import cv2
import numpy as np

from mmdsym.errors import UserError
from mmdsym.registry import SYNTHESISERS

from .synthesiser import CLEAN_SURFACE, PaintingTask, repaint_region


@SYNTHESISERS.register_module()
class CopyPasteSynthesiser:
    """Pastes the reference into the box, with a feathered seam.

    Its brightness is shifted to that of the surface around the box. Clean surface is painted by
    mirroring what lies beside the box. See Ghiasi et al., arXiv 2012.07177, for copy-paste.

    Args:
        match_brightness: Whether to shift the brightness.
        contrast: Largest random change of the reference's contrast, in [0, 1).
    """

    def __init__(self, match_brightness: bool = True, contrast: float = 0.1) -> None:
        self.match_brightness = match_brightness
        self.contrast = contrast

    @property
    def fingerprint(self) -> str:
        """Name, version and settings."""
        settings = dict(match_brightness=self.match_brightness, contrast=self.contrast)
        return f'copy-paste 2 {json.dumps(settings, sort_keys=True)}'

    def paint(self, tasks: Sequence[PaintingTask]) -> list[np.ndarray]:
        """Returns each task's image with its region repainted.

        Raises:
            UserError: A task for a defect has no reference.
        """
        return [self._paint(task) for task in tasks]

    def _paint(self, task: PaintingTask) -> np.ndarray:
        if task.label != CLEAN_SURFACE and task.reference is None:
            raise UserError(
                'CopyPasteSynthesiser can only paste: give it layouts whose references are '
                'labelled defects.'
            )
        height, width = task.image.shape[:2]
        region = repaint_region(task.box, (width, height))
        inner = _pixel_box(task.box, (width, height))
        if task.label == CLEAN_SURFACE:
            patch = _mirrored_surface(task.image, region)
        else:
            patch = self._patch(task, region, inner)
        left, top, right, bottom = region
        alpha = _feathered(region, inner)[..., None]
        result = task.image.copy()
        surface = result[top:bottom, left:right]
        blended = surface + alpha * (patch - surface)
        result[top:bottom, left:right] = np.rint(blended).clip(0, 255).astype(np.uint8)
        return result

    def _patch(
        self, task: PaintingTask, region: tuple[int, ...], inner: tuple[int, ...]
    ) -> np.ndarray:
        """The reference, brought to the region: float32, its seam mirrored from the inside."""
        size = (inner[2] - inner[0], inner[3] - inner[1])
        defect = task.defect
        shrinks = size[0] * size[1] < defect.shape[0] * defect.shape[1]
        resized = cv2.resize(
            defect, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        ).astype(np.float32)
        generator = np.random.default_rng(task.seed)
        centre = _own_surface_brightness(task) if any(task.seam) else _border_brightness(resized)
        gain = 1 + generator.uniform(-self.contrast, self.contrast)
        resized = centre + gain * (resized - centre)
        if self.match_brightness:
            resized += _surrounding_brightness(task.image, region, inner, centre) - centre
        return cv2.copyMakeBorder(
            resized,
            inner[1] - region[1],
            region[3] - inner[3],
            inner[0] - region[0],
            region[2] - inner[2],
            cv2.BORDER_REFLECT,
        )


def _pixel_box(
    box: tuple[float, float, float, float], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The pixels that a box touches, at least one."""
    width, height = image_size
    left, top = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    right = min(width, max(left + 1, int(np.ceil(box[2]))))
    bottom = min(height, max(top + 1, int(np.ceil(box[3]))))
    return left, top, right, bottom


def _feathered(region: tuple[int, ...], inner: tuple[int, ...]) -> np.ndarray:
    """1 inside the box, falling linearly over the seam; (height, width) of the region, float32."""

    def ramp(begin: int, low: int, high: int, end: int) -> np.ndarray:
        position = np.arange(begin, end) + 0.5
        before = (position - begin) / max(1, low - begin)
        behind = (end - position) / max(1, end - high)
        inside = (position > low) & (position < high)
        return np.where(inside, 1.0, np.minimum(before, behind).clip(0, 1))

    columns = ramp(region[0], inner[0], inner[2], region[2])
    rows = ramp(region[1], inner[1], inner[3], region[3])
    return np.minimum(rows[:, None], columns[None]).astype(np.float32)


def _border_brightness(patch: np.ndarray) -> np.ndarray:
    """Median of the outermost pixels per channel: (3,), float32."""
    border = np.ones(patch.shape[:2], dtype=bool)
    border[1:-1, 1:-1] = False
    return np.median(patch[border], axis=0).astype(np.float32)


def _own_surface_brightness(task: PaintingTask) -> np.ndarray:
    """Median of the reference's seam per channel: (3,), float32."""
    rows, columns = task.reference.shape[:2]
    seam = np.ones((rows, columns), dtype=bool)
    seam[task.seam[1] : rows - task.seam[1], task.seam[0] : columns - task.seam[0]] = False
    return np.median(task.reference[seam], axis=0).astype(np.float32)


def _surrounding_brightness(
    image: np.ndarray, region: tuple[int, ...], inner: tuple[int, ...], default: np.ndarray
) -> np.ndarray:
    """Median of the seam per channel; ``default`` where the box leaves none."""
    left, top, right, bottom = region
    seam = np.ones((bottom - top, right - left), dtype=bool)
    seam[inner[1] - top : inner[3] - top, inner[0] - left : inner[2] - left] = False
    if not seam.any():
        return default
    return np.median(image[top:bottom, left:right][seam], axis=0).astype(np.float32)


def _mirrored_surface(image: np.ndarray, region: tuple[int, ...]) -> np.ndarray:
    """What lies on the region's widest free side, mirrored into it: float32.

    A region that is the whole image becomes its mean.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = region
    room = dict(left=left, top=top, right=width - right, bottom=height - bottom)
    side = max(room, key=room.get)
    if room[side] == 0:
        patch = np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
        return patch.astype(np.float32)
    rows, columns = slice(top, bottom), slice(left, right)
    tall, wide = bottom - top, right - left
    strips = dict(
        left=(image[rows, :left], (0, 0, 0, wide)),
        right=(image[rows, right:], (0, 0, wide, 0)),
        top=(image[:top, columns], (0, tall, 0, 0)),
        bottom=(image[bottom:, columns], (tall, 0, 0, 0)),
    )
    strip, border = strips[side]
    filled = cv2.copyMakeBorder(strip, *border, cv2.BORDER_REFLECT)
    cut = dict(
        left=filled[:, -wide:],
        right=filled[:, :wide],
        top=filled[-tall:],
        bottom=filled[:tall],
    )[side]
    return cut.astype(np.float32)
