"""Labelled boxes of images, and boxes that show a clean surface as one more class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from torch import Tensor

from mmdsym.datasets import read_classes
from mmdsym.errors import UserError
from mmdsym.free_space import find_free_box

_SIZE_TRIES = 4


@dataclass(frozen=True)
class LabelledImage:
    """One image with its boxes.

    Attributes:
        path: Of the image.
        size: (width, height) in pixels.
        boxes: (N, 4), x1 y1 x2 y2 in pixels, within the image and of positive area.
        labels: (N,), class indices; the number of classes means clean surface.
        taken: (M, 4), all annotated boxes, crowds included.
    """

    path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    taken: np.ndarray


@dataclass(frozen=True)
class LabelledCrops:
    """The boxes of a labelled split.

    Attributes:
        classes: Class names, without the clean surface.
        images: Those with at least one box.
    """

    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]

    def entries(self) -> Iterator[tuple[LabelledImage, int]]:
        """Yields each box, as its image and its index there."""
        for image in self.images:
            for index in range(len(image.boxes)):
                yield image, index

    def labels(self) -> np.ndarray:
        """Returns the labels of all boxes, in the order of :meth:`entries`."""
        labels = [image.labels for image in self.images]
        return np.concatenate(labels) if labels else np.zeros(0, dtype=int)


def read_labelled_crops(
    ann_file: str | Path, images_dir: str | Path, clean_per_image: int = 2, seed: int = 0
) -> LabelledCrops:
    """Reads labelled boxes and finds clean surface between them.

    Args:
        ann_file: COCO json of labelled images.
        images_dir: Folder of the images.
        clean_per_image: Most boxes of clean surface per image: of sizes that labelled boxes have,
            and free of every annotated box. An image full of defects has none.
        seed: Of their places; the same seed finds the same ones.

    Raises:
        UserError: The file is missing, is not COCO, or has no labelled box.
    """
    classes = read_classes(ann_file)
    images = _read_images(Path(ann_file), Path(images_dir))
    boxes = [image.boxes for image in images if len(image.boxes)]
    if not boxes:
        raise UserError(f'{ann_file} has no labelled box: give the CLIP scorer a labelled split.')
    every_box = np.concatenate(boxes)
    generator = np.random.default_rng(seed)
    sizes = every_box[:, 2:] - every_box[:, :2]
    found = [
        _with_clean_boxes(image, sizes, len(classes), clean_per_image, generator)
        for image in images
    ]
    return LabelledCrops(classes, tuple(image for image in found if len(image.boxes)))


def read_rgb(path: Path) -> Tensor:
    """Reads an image as (3, H, W), uint8, RGB.

    Raises:
        UserError: It is missing or unreadable.
    """
    try:
        pixels = mmcv.imread(path, channel_order='rgb')
    except OSError as error:
        raise UserError(
            f'the image {path} cannot be read ({type(error).__name__}): prepare the data again.'
        ) from None
    # OpenCV decodes what it cannot read to None, and then fails to change its channels.
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UserError(f'the image {path} is damaged: prepare the data again.')
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _read_images(ann_file: Path, images_dir: Path) -> list[LabelledImage]:
    try:
        content = json.loads(ann_file.read_text(encoding='utf-8'))
        label_of = {entry['id']: n for n, entry in enumerate(content['categories'])}
        of_image: dict[int, list[dict]] = {}
        for annotation in content['annotations']:
            of_image.setdefault(annotation['image_id'], []).append(annotation)
        return [
            _read_image(entry, of_image.get(entry['id'], []), label_of, images_dir)
            for entry in content['images']
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{ann_file} is not a COCO annotation file ({error!r}): make it anew with '
            'tools/prepare_dataset.py.'
        ) from None


def _read_image(
    entry: dict, annotations: Sequence[dict], label_of: dict[int, int], images_dir: Path
) -> LabelledImage:
    boxes = np.array([a['bbox'] for a in annotations], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([label_of[a['category_id']] for a in annotations], dtype=int)
    plain = np.array([not a.get('iscrowd', 0) for a in annotations], dtype=bool)
    size = int(entry['width']), int(entry['height'])
    # Only what shows on the image can be learnt from; where nothing does, the surface is clean.
    finite = np.isfinite(boxes).all(axis=1)
    boxes = np.where(finite[:, None], boxes, 0.0).clip(0, np.tile(size, 2))
    shown = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    usable = plain & shown
    return LabelledImage(
        images_dir / entry['file_name'], size, boxes[usable], labels[usable], boxes[shown]
    )


def _with_clean_boxes(
    image: LabelledImage,
    sizes: np.ndarray,
    label: int,
    count: int,
    generator: np.random.Generator,
) -> LabelledImage:
    clean: list[np.ndarray] = []
    for _ in range(count):
        taken = np.concatenate([image.taken, np.reshape(clean, (-1, 4))])
        for size in generator.choice(sizes, _SIZE_TRIES):
            box = find_free_box(generator, image.size, tuple(size), taken)
            if box is not None:
                clean.append(box)
                break
    if not clean:
        return image
    return replace(
        image,
        boxes=np.concatenate([image.boxes, clean]),
        labels=np.concatenate([image.labels, np.full(len(clean), label)]),
    )
