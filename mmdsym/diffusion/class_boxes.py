"""The labelled boxes of each class, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .labelled_images import LabelledImage
from .layout_config import LayoutConfig
from .size_distribution import SizeDistribution, aspect_ratios, box_sizes
from .synthesiser import repaint_region


@dataclass(frozen=True, eq=False)
class ClassBoxes:
    """The labelled boxes of one class, N from 1.

    Attributes:
        images: (N,), index of the labelled image.
        positions: (N,), index among the boxes of that image.
        boxes: (N, 4), x1 y1 x2 y2 in pixels.
        ratios: (N,), width over height.
        buckets: (N,), index in ``BUCKETS``.
        fits: (3, N), whether a box may stand for each of ``BUCKETS``: one that lies on a border,
            as all do where a class has one size only, may for both sides.
        repaintable: (N,), whether it can be painted over, seam included, without spoiling another
            box, or touching one that is marked as a crowd.
        sizes: The sizes that new boxes of the class get.
    """

    images: np.ndarray
    positions: np.ndarray
    boxes: np.ndarray
    ratios: np.ndarray
    buckets: np.ndarray
    fits: np.ndarray
    repaintable: np.ndarray
    sizes: SizeDistribution


def measure_class(
    images: Sequence[LabelledImage], label: int, config: LayoutConfig
) -> ClassBoxes | None:
    """Collects the boxes of a class; ``None`` where nothing is labelled with it."""
    found = [
        (index, position)
        for index, image in enumerate(images)
        for position in np.flatnonzero((image.labels == label) & ~image.ignored)
    ]
    if not found:
        return None
    boxes = np.array([images[index].boxes[position] for index, position in found])
    sizes = box_sizes(boxes)
    distribution = SizeDistribution(sizes, config.sizes, config.size_quantiles)
    return ClassBoxes(
        images=np.array([index for index, _ in found]),
        positions=np.array([position for _, position in found]),
        boxes=boxes,
        ratios=aspect_ratios(boxes),
        buckets=np.array([distribution.bucket_of(size) for size in sizes]),
        fits=(sizes >= distribution.borders[:3, None]) & (sizes <= distribution.borders[1:, None]),
        repaintable=np.array(
            [
                _is_repaintable(images[index], position, config.max_covered)
                for index, position in found
            ]
        ),
        sizes=distribution,
    )


def _is_repaintable(image: LabelledImage, position: int, max_covered: float) -> bool:
    box = image.boxes[position]
    others = np.delete(image.boxes, position, axis=0)
    return spoils_nothing(box, others, image.size, max_covered) and avoids(
        box, image.boxes[image.ignored], image.size
    )


def avoids(box: np.ndarray, crowds: np.ndarray, image_size: tuple[int, int]) -> bool:
    """Says whether painting a box leaves others as they were.

    Args:
        box: (4,), x1 y1 x2 y2.
        crowds: (N, 4).
        image_size: (width, height) in pixels.
    """
    return spoils_nothing(box, crowds, image_size, 0.0)


def spoils_nothing(
    box: np.ndarray, others: np.ndarray, image_size: tuple[int, int], max_covered: float
) -> bool:
    """Says whether painting a box leaves all but a stated share of every other box as it was.

    The seam counts as painted: a defect that fades into another one changes it, too.

    Args:
        box: (4,), x1 y1 x2 y2.
        others: (N, 4).
        image_size: (width, height) in pixels.
        max_covered: In [0, 1].
    """
    if not len(others):
        return True
    left, top, right, bottom = repaint_region(tuple(box), image_size)
    width = np.minimum(right, others[:, 2]) - np.maximum(left, others[:, 0])
    height = np.minimum(bottom, others[:, 3]) - np.maximum(top, others[:, 1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return bool((width.clip(min=0) * height.clip(min=0) <= max_covered * areas).all())
