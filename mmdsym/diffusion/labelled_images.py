"""The labelled images that layouts start from, as arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS

from mmdsym.datasets import LoadCachedImageFromFile
from mmdsym.errors import UserError


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """What is known of one labelled image without opening it.

    Attributes:
        path: The image file.
        size: (width, height) in pixels.
        boxes: (N, 4), x1 y1 x2 y2 in pixels, clipped to the image.
        labels: (N,), class indices.
        ignored: (N,), whether a box is marked as a crowd: it is kept, but nothing is made of it.
    """

    path: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class Reference:
    """A labelled defect that a new one starts from.

    Attributes:
        image: Index of the labelled image.
        box: x1, y1, x2, y2 in pixels.
        mirrored: Whether left and right, top and bottom are swapped.
        transposed: Whether rows and columns are swapped, after mirroring.
    """

    image: int
    box: tuple[float, float, float, float]
    mirrored: tuple[bool, bool] = (False, False)
    transposed: bool = False


class LabelledImages(Sequence[LabelledImage]):
    """The images of a labelled data set with their boxes.

    Args:
        images: In the order of the data set.
        classes: Class names, in the order of the labels.
        origin: Where they come from, for those who read a cache later: ``ann_file`` and
            ``images``, the folder.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        classes: Sequence[str],
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.images = list(images)
        self.classes = tuple(classes)
        self.origin = dict(origin or {})
        self._load = LoadCachedImageFromFile(cache_megabytes=256)

    def __getitem__(self, index: int) -> LabelledImage:
        return self.images[index]

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, index: int) -> np.ndarray:
        """Returns an image as (H, W, 3), uint8, RGB.

        Raises:
            UserError: It cannot be read, or has another size than its annotation says.
        """
        image = self.images[index]
        pixels = self._load.transform(dict(img_path=image.path))['img'][..., ::-1]
        if pixels.shape[1::-1] != image.size:
            raise UserError(
                f'{image.path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, but its annotation '
                f'says {image.size[0]}x{image.size[1]}: prepare the data again.'
            )
        return np.ascontiguousarray(pixels)

    def crop(
        self, reference: Reference, seam: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """Returns the pixels of a labelled defect with some of the surface around it.

        Args:
            reference: The defect.
            seam: How much surface is wanted on each side, in units of the result's width and
                height; beyond the image's border it is mirrored.

        Returns:
            (h, w, 3), uint8, RGB, at least one pixel without the seam; and the columns and rows of
            the seam on each side.
        """
        width, height = self.images[reference.image].size
        x1, y1, x2, y2 = reference.box
        left, top = min(int(x1), width - 1), min(int(y1), height - 1)
        right, bottom = max(left + 1, int(np.ceil(x2))), max(top + 1, int(np.ceil(y2)))
        across, down = reversed(seam) if reference.transposed else seam
        columns, rows = round(across * (right - left)), round(down * (bottom - top))
        whole = cv2.copyMakeBorder(
            self.pixels(reference.image), rows, rows, columns, columns, cv2.BORDER_REFLECT_101
        )
        crop = whole[top : bottom + 2 * rows, left : right + 2 * columns]
        crop = crop[:, ::-1] if reference.mirrored[0] else crop
        crop = crop[::-1] if reference.mirrored[1] else crop
        if reference.transposed:
            crop, columns, rows = crop.transpose(1, 0, 2), rows, columns
        return np.ascontiguousarray(crop), (columns, rows)

    @cached_property
    def surfaces(self) -> np.ndarray:
        """Mean and standard deviation of the grey levels of each image: (N, 2).

        Where boxes leave a tenth of an image or more, only that counts.
        """
        return np.array([self._surface(index) for index in range(len(self))]).reshape(-1, 2)

    def _surface(self, index: int) -> tuple[float, float]:
        pixels = self.pixels(index).mean(axis=2)
        clean = np.ones(pixels.shape, dtype=bool)
        for x1, y1, x2, y2 in self.images[index].boxes.round().astype(int):
            clean[y1:y2, x1:x2] = False
        seen = pixels[clean] if clean.mean() >= 0.1 else pixels
        return float(seen.mean()), float(seen.std())

    @cached_property
    def labels_digest(self) -> str:
        """sha256 over classes, image sizes, boxes and labels: all of the annotations that is used.

        File names count too, since the synthetic images name what they were made from.
        """
        content = [
            [
                Path(image.path).name,
                list(image.size),
                np.asarray(image.boxes, dtype=float).tolist(),
                np.asarray(image.labels).tolist(),
                np.asarray(image.ignored, dtype=bool).tolist(),
            ]
            for image in self.images
        ]
        return hashlib.sha256(json.dumps([self.classes, content]).encode()).hexdigest()

    @cached_property
    def pixels_digest(self) -> str:
        """sha256 over the image files, in order."""
        digest = hashlib.sha256()
        for image in self.images:
            try:
                digest.update(hashlib.sha256(Path(image.path).read_bytes()).digest())
            except OSError as error:
                raise UserError(
                    f'image {image.path} cannot be read ({error.strerror}): restore the file, or '
                    'prepare the data again.'
                ) from None
        return digest.hexdigest()


def read_labelled_images(dataset: Mapping | BaseDataset) -> LabelledImages:
    """Reads a labelled data set, or builds it from its config first.

    Raises:
        UserError: It has no images.
    """
    if isinstance(dataset, Mapping):
        # Images are read from their files: no pipeline may move the boxes. MMEngine cannot
        # serialise an empty data set, which is to be named below.
        dataset = MMENGINE_DATASETS.build({**dataset, 'pipeline': [], 'serialize_data': False})
    if not len(dataset):
        raise UserError(
            f'{dataset.ann_file} lists no images to synthesise from: prepare the data with a '
            'larger label fraction.'
        )
    images = [_labelled_image(dataset.get_data_info(index)) for index in range(len(dataset))]
    prefix = (dataset.data_prefix or {}).get('img') or ''
    origin = dict(ann_file=str(dataset.ann_file), images=str(prefix))
    return LabelledImages(images, dataset.metainfo['classes'], origin)


def _labelled_image(info: Mapping) -> LabelledImage:
    size = (int(info['width']), int(info['height']))
    instances = info['instances']
    boxes = np.array([instance['bbox'] for instance in instances], dtype=float).reshape(-1, 4)
    return LabelledImage(
        path=info['img_path'],
        size=size,
        boxes=np.clip(boxes, 0, np.tile(size, 2)),
        labels=np.array([instance['bbox_label'] for instance in instances], dtype=int),
        ignored=np.array([bool(instance['ignore_flag']) for instance in instances], dtype=bool),
    )


def is_grey(pixels: np.ndarray) -> bool:
    """Says whether the three channels of an image, (H, W, 3), are equal."""
    blue, green, red = cv2.split(pixels)
    return np.array_equal(blue, green) and np.array_equal(green, red)
