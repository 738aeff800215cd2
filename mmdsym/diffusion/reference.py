"""A labelled defect of another image becomes the start of a new one."""

from __future__ import annotations

import cv2
import numpy as np

from .blending import blend
from .regions import resize
from .synthesiser import PaintingTask


def with_reference(task: PaintingTask) -> np.ndarray:
    """Returns the task's image with the reference, brought to its size, in the box.

    Where the reference brings some of its own surface along, that fades into the surface of the
    image, and its brightness becomes that of the image: a defect that is darker than its surface
    stays so.

    Args:
        task: With a reference.

    Returns:
        (H, W, 3), uint8; outside of ``repaint_region(task.box, ...)`` it equals the image.
    """
    height, width = task.image.shape[:2]
    left, top, right, bottom = _outer_box(task)
    patch = resize(task.reference, (right - left, bottom - top))
    rows, columns = slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))
    image = task.image.copy()
    image[rows, columns] = patch[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return blend(task.image, image, task.box) if any(task.seam) else image


def _outer_box(task: PaintingTask) -> tuple[int, int, int, int]:
    """Where the reference goes with its seam, in whole pixels; may reach beyond the image."""
    x1, y1, x2, y2 = task.box
    rows, columns = task.reference.shape[:2]
    across = task.seam[0] * (x2 - x1) / (columns - 2 * task.seam[0])
    down = task.seam[1] * (y2 - y1) / (rows - 2 * task.seam[1])
    left, top = int(np.floor(x1 - across)), int(np.floor(y1 - down))
    return left, top, int(np.ceil(x2 + across)), int(np.ceil(y2 + down))


def with_detail(painted: np.ndarray, start: np.ndarray, scale: float) -> np.ndarray:
    """Gives a painted image the fine structure of another one, and keeps its coarse structure.

    Args:
        painted: (H, W, 3), uint8.
        start: (H, W, 3), uint8.
        scale: Standard deviation in pixels of the Gaussian that parts coarse from fine.

    Returns:
        (H, W, 3), uint8.
    """
    change = painted.astype(np.float32) - start.astype(np.float32)
    coarse = cv2.GaussianBlur(change, (0, 0), scale, borderType=cv2.BORDER_REFLECT_101)
    return (start + coarse).round().clip(0, 255).astype(np.uint8)
