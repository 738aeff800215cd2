"""NEU-DET: its original layout, its widespread train/validation layout, and its splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.datasets.preparation.sources.files import (
    list_files,
    list_images,
    names_for,
    subfolder,
)
from mmdsym.datasets.preparation.sources.xml import attach_voc_annotations
from mmdsym.errors import UserError

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
    stems = [_NAME.fullmatch(image.stem) for image in images]
    return (
        bool(stems)
        and all(stems)
        and any(int(stem.group(2)) > LAST_TRAINING_NUMBER for stem in stems if stem)
    )


def file_under_name(images: Sequence[SourceImage]) -> None:
    """Files each image under the class that its name states, as the authors of NEU-DET did."""
    for image in images:
        match = _NAME.fullmatch(image.stem)
        image.stratum = match.group(1) if match else None


def apply_default_split(images: Sequence[SourceImage]) -> None:
    """Files 1..240 of each class become training images, the others validation images."""
    for image in images:
        number = int(_NAME.fullmatch(image.stem).group(2))
        image.split = 'train' if number <= LAST_TRAINING_NUMBER else 'val'


def is_original_layout(root: Path) -> bool:
    """Whether the folder holds IMAGES/ and ANNOTATIONS/ with NEU-DET's file names."""
    images = subfolder(root, 'IMAGES')
    if images is None or subfolder(root, 'ANNOTATIONS') is None:
        return False
    first = next(iter(list_images(images)), None)
    return first is not None and _NAME.fullmatch(first.stem) is not None


def is_split_layout(root: Path) -> bool:
    """Whether the folder holds train and validation folders, each with images/, annotations/."""
    folders = [subfolder(root, 'train'), subfolder(root, 'validation', 'val', 'valid')]
    return all(
        folder is not None
        and subfolder(folder, 'images') is not None
        and subfolder(folder, 'annotations') is not None
        and next(iter(list_files(folder, {'.xml'})), None) is not None
        for folder in folders
    )


def read_original(root: Path) -> Source:
    """Reads IMAGES/*.jpg and ANNOTATIONS/*.xml.

    Raises:
        UserError: When one of the two folders is missing.
    """
    image_folder, annotation_folder = subfolder(root, 'IMAGES'), subfolder(root, 'ANNOTATIONS')
    if image_folder is None or annotation_folder is None:
        raise UserError(f'{root} has no IMAGES/ and ANNOTATIONS/; choose another --layout')
    paths = list_images(image_folder)
    names = names_for(paths, image_folder)
    images = [SourceImage(path, names[path]) for path in paths]
    problems, notes = attach_voc_annotations(images, list_files(annotation_folder, {'.xml'}))
    file_under_name(images)
    return Source('neu', root, list(CLASSES), images, problems, notes)


def read_split(root: Path) -> Source:
    """Reads train|validation/images/<class>/*.jpg and train|validation/annotations/*.xml.

    An annotation may lie in the other half than its image, as happens in copies of this layout;
    the image's folder decides.

    Raises:
        UserError: When a folder is missing.
    """
    images: list[SourceImage] = []
    folders = {
        'train': subfolder(root, 'train'),
        'val': subfolder(root, 'validation', 'val', 'valid'),
    }
    if any(folder is None for folder in folders.values()):
        raise UserError(f'{root} has no train/ and validation/; choose another --layout')
    paths = {split: list_images(folder) for split, folder in folders.items()}
    names = names_for([path for split in paths.values() for path in split], root)
    for split, found in paths.items():
        images += [SourceImage(path, names[path], split=split) for path in found]
    files = [path for folder in folders.values() for path in list_files(folder, {'.xml'})]
    problems, notes = attach_voc_annotations(images, files)
    classes = sorted({label for image in images for label in image.labels})
    if is_neu(images):
        file_under_name(images)
        classes = list(CLASSES)
    return Source('neu-split', root, classes, images, problems, notes)
