"""NEU-DET: how its copies are recognised, its classes and its splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.datasets.preparation.sources.files import list_files, list_images, subfolder

CLASSES = [
    'crazing',
    'inclusion',
    'patches',
    'pitted_surface',
    'rolled-in_scale',
    'scratches',
]
LAST_TRAINING_NUMBER = 240
"""The split most users know: files 1..240 of each class for training, the others to validate."""

_NAME = re.compile(rf'({"|".join(map(re.escape, CLASSES))})_(\d+)')


def is_neu(images: Sequence[SourceImage]) -> bool:
    """Whether the images are those of NEU-DET by their names, such as `scratches_17`."""
    return bool(images) and all(_NAME.fullmatch(image.stem) for image in images)


def is_original_layout(root: Path) -> bool:
    """Whether the folder holds IMAGES/ and ANNOTATIONS/ with NEU-DET's file names."""
    images = subfolder(root, 'IMAGES')
    if images is None or subfolder(root, 'ANNOTATIONS') is None:
        return False
    first = next(iter(list_images(images)), None)
    return first is not None and _NAME.fullmatch(first.stem) is not None


def is_split_layout(root: Path) -> bool:
    """Whether the folder holds train and validation folders, each with images/, annotations/."""
    return all(
        folder is not None
        and subfolder(folder, 'images') is not None
        and subfolder(folder, 'annotations') is not None
        and bool(list_files(folder, {'.xml'}))
        for folder in (subfolder(root, 'train'), subfolder(root, 'validation', 'val', 'valid'))
    )


def adopt(source: Source) -> None:
    """Gives a copy of NEU-DET, in whatever layout, the project's class order.

    Each image is filed under the class that its name states, as the authors did: a few images
    also show, or show only, defects of another class. Other sources stay as they are.
    """
    if not is_neu(source.images):
        return
    for image in source.images:
        image.stratum = _NAME.fullmatch(image.stem).group(1)
    if source.layout.startswith('neu') or set(source.classes) == set(CLASSES):
        source.classes = list(CLASSES)


def has_default_split(images: Sequence[SourceImage]) -> bool:
    """Whether the images are NEU-DET's and both halves of its default split are among them."""
    return is_neu(images) and len({_default_split(image) for image in images}) == 2


def apply_default_split(images: Sequence[SourceImage]) -> None:
    """Files 1..240 of each class become training images, the others validation images."""
    for image in images:
        image.split = _default_split(image)


def _default_split(image: SourceImage) -> str:
    number = int(_NAME.fullmatch(image.stem).group(2))
    return 'train' if number <= LAST_TRAINING_NUMBER else 'val'
