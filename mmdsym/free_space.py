"""Places on an image that defects leave free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def covered_share(box: np.ndarray, others: np.ndarray) -> float:
    """Returns the largest share of one box's area that another box covers, in [0, 1].

    Args:
        box: (4,), x1 y1 x2 y2, of positive area.
        others: (N, 4).
    """
    if not len(others):
        return 0.0
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    shared = width.clip(min=0) * height.clip(min=0)
    return float(shared.max() / ((box[2] - box[0]) * (box[3] - box[1])))


def find_free_box(
    generator: np.random.Generator,
    image_size: tuple[int, int],
    box_size: tuple[float, float],
    taken: Sequence | np.ndarray,
    max_covered: float = 0.0,
    tries: int = 50,
) -> np.ndarray | None:
    """Looks for a place inside the image where a box of a given size covers nothing else.

    Args:
        generator: Draws the places.
        image_size: (width, height) in pixels.
        box_size: (width, height) in pixels.
        taken: (N, 4), x1 y1 x2 y2 of the boxes that are there.
        max_covered: Largest share of the new box that any of them may cover, in [0, 1].
        tries: Places to try.

    Returns:
        (4,), x1 y1 x2 y2; ``None`` where the box does not fit or no try was free.
    """
    room = np.subtract(image_size, box_size)
    if (room < 0).any():
        return None
    others = np.asarray(taken, dtype=float).reshape(-1, 4)
    for _ in range(tries):
        corner = generator.uniform(0, room + 1e-9)
        box = np.concatenate([corner, corner + box_size])
        if covered_share(box, others) <= max_covered:
            return box
    return None
