"""Square windows around defects: what the diffusion model sees of an image."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .synthesiser import repaint_region

Corners = tuple[float, float, float, float]


class Window(NamedTuple):
    """A square of whole pixels; may reach beyond the image."""

    left: int
    top: int
    side: int


def place_window(
    box: Corners,
    image_size: tuple[int, int],
    context: float,
    min_side: int = 64,
    shift: tuple[float, float] = (0.5, 0.5),
) -> Window:
    """Returns a window that holds all that painting a box may change.

    It lies inside the image unless the image is too small for it.

    Args:
        box: x1, y1, x2, y2 in pixels.
        image_size: (width, height) in pixels.
        context: Side of the window in units of the box's longer side, from 1.
        min_side: Smallest side in pixels, lest tiny defects are enlarged without end.
        shift: Where the region lies in the window's free room, each in [0, 1]; 0.5 is the middle.
    """
    left, top, right, bottom = repaint_region(box, image_size)
    needed = max(right - left, bottom - top)
    wanted = max(context * max(box[2] - box[0], box[3] - box[1]), min_side)
    side = max(needed, min(round(wanted), min(image_size)))
    corner = []
    for low, high, room, share in zip((left, top), (right, bottom), image_size, shift, strict=True):
        start = round(low - share * (side - (high - low)))
        # Inside the image where it fits there, around the image's middle where it does not.
        start = min(max(start, 0), room - side) if side <= room else (room - side) // 2
        corner.append(start)
    return Window(*corner, side)


def cut_window(image: np.ndarray, window: Window, size: int) -> np.ndarray:
    """Returns a window at another size; the edges of the image go on beyond its border.

    Args:
        image: (H, W) or (H, W, C), uint8.
        window: What to cut out.
        size: Side of the result in pixels.

    Returns:
        (size, size, C), uint8.
    """
    left, top, side = window
    height, width = image.shape[:2]
    beyond = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
    if any(beyond):
        image = cv2.copyMakeBorder(image, *beyond, cv2.BORDER_REPLICATE)
        left, top = left + beyond[2], top + beyond[0]
    piece = image[top : top + side, left : left + side]
    return resize(piece, (size, size))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to (width, height): averaged where it shrinks, cubic where it grows.

    Args:
        image: (H, W) or (H, W, C), uint8.
        size: (width, height) in pixels.

    Returns:
        (height, width, C), uint8.
    """
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(np.ascontiguousarray(image), size, interpolation=method)
    return resized if resized.ndim == 3 else resized[..., None]


def paste_window(image: np.ndarray, painted: np.ndarray, window: Window) -> np.ndarray:
    """Returns a copy of an image in which a window is replaced, as far as it lies inside.

    Args:
        image: (H, W, C), uint8.
        painted: (size, size, C), uint8.
        window: Where it was cut out.
    """
    left, top, side = window
    height, width = image.shape[:2]
    patch = resize(painted, (side, side))
    rows = slice(max(0, top), min(height, top + side))
    columns = slice(max(0, left), min(width, left + side))
    result = image.copy()
    result[rows, columns] = patch[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return result


def region_masks(
    box: Corners, image_size: tuple[int, int], window: Window, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what may change in a window and where its defect lies.

    Args:
        box: x1, y1, x2, y2 in pixels of the image.
        image_size: (width, height) in pixels.
        window: What the model sees.
        size: Side of the masks in pixels.

    Returns:
        Two masks (size, size, 1), uint8, 0 or 255 but at their edges: the region to repaint, and
        the box.
    """
    width, height = image_size
    left, top, right, bottom = repaint_region(box, image_size)
    region = np.zeros((height, width), dtype=np.uint8)
    region[top:bottom, left:right] = 255
    inside = np.zeros((height, width), dtype=np.uint8)
    x1, y1, x2, y2 = (round(value) for value in box)
    inside[y1 : max(y1 + 1, y2), x1 : max(x1 + 1, x2)] = 255
    return tuple(
        outside_is_zero(cut_window(mask, window, size), window, image_size)
        for mask in (region, inside)
    )


def outside_is_zero(mask: np.ndarray, window: Window, image_size: tuple[int, int]) -> np.ndarray:
    """Clears what a mask says beyond the image, where the edges were drawn out."""
    scale = mask.shape[0] / window.side
    left, top = round(-window.left * scale), round(-window.top * scale)
    right = round((image_size[0] - window.left) * scale)
    bottom = round((image_size[1] - window.top) * scale)
    cleared = np.zeros_like(mask)
    rows, columns = slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right))
    cleared[rows, columns] = mask[rows, columns]
    return cleared
