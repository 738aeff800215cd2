"""The labelled crops of a data set: its defects and pieces of clean surface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmdsym.free_space import find_free_box

from .labelled_images import LabelledImages


@dataclass(frozen=True, eq=False)
class CropSet:
    """Boxes of many images.

    Attributes:
        images: Where the crops are.
        index: (N,), the image of each crop.
        boxes: (N, 4), x1 y1 x2 y2 in pixels.
        labels: (N,), class indices; the number of classes stands for clean surface.
    """

    images: LabelledImages
    index: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """What the labels mean."""
        return (*self.images.classes, 'clean surface')

    def pixels(self) -> Iterator[np.ndarray]:
        """Yields the image of each crop, (H, W, 3), uint8, RGB; each is opened once in a row."""
        opened, pixels = None, None
        for index in self.index:
            if index != opened:
                opened, pixels = index, self.images.pixels(index)
            yield pixels


def collect_crops(images: LabelledImages, seed: int = 0) -> CropSet:
    """Returns every labelled defect, and of each image one piece of clean surface if it has room.

    Pieces have the size of a labelled defect, of the same image where it has one. Boxes without
    area and those marked as crowds are left out.

    Args:
        images: The labelled images.
        seed: Of sizes and places of the clean pieces.
    """
    generator = np.random.default_rng(seed)
    usable = [_usable(image.boxes) & ~image.ignored for image in images]
    shapes = np.concatenate(
        [_shapes(image.boxes[use]) for image, use in zip(images, usable, strict=True)]
        or [np.zeros((0, 2))]
    )
    index, boxes, labels = [], [], []
    for number, (image, use) in enumerate(zip(images, usable, strict=True)):
        index += [number] * int(use.sum())
        boxes += list(image.boxes[use])
        labels += list(image.labels[use])
        clean = _clean_box(generator, image, _shapes(image.boxes[use]), shapes)
        if clean is not None:
            index.append(number)
            boxes.append(clean)
            labels.append(len(images.classes))
    return CropSet(
        images,
        np.array(index, dtype=int),
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array(labels, dtype=int),
    )


def _clean_box(
    generator: np.random.Generator, image, own: np.ndarray, others: np.ndarray
) -> np.ndarray | None:
    shapes: Sequence = own if len(own) else others
    if not len(shapes):
        return None
    shape = shapes[generator.integers(len(shapes))]
    return find_free_box(generator, image.size, tuple(shape), image.boxes)


def _shapes(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2:] - boxes[:, :2]


def _usable(boxes: np.ndarray) -> np.ndarray:
    return (_shapes(boxes) > 0).all(axis=1)
