"""A folder of images that are known to show no defect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdsym.datasets.preparation.extra_images import list_folder, new_images
from mmdsym.datasets.preparation.records import DUPLICATE, Problem, Source, SourceImage
from mmdsym.datasets.preparation.splitting import stratified_order
from mmdsym.errors import UserError

KNOWN_GOOD_PER_LABELLED = 1.0
"""Most known-good images for each labelled one: with more, most of a batch would be background."""

FROM_FOLDER = 'known-good folder'


def add_known_good(source: Source, folder: Path) -> None:
    """Adds all images of a folder as training images that are known to have no defect.

    A folder inside of the source counts too: its images without annotation become known good ones
    in place of unlabelled ones.

    Raises:
        UserError: When the folder is missing, holds no image, or holds one with a labelled box.
    """
    paths = list_folder(folder, '--known-good-dir')
    inside = {path.resolve() for path in paths}
    _refuse_boxes(source, inside, folder)
    good = new_images(source, paths, folder, 'known_good')
    good += [image for image in source.unlabelled if image.path.resolve() in inside]
    source.unlabelled = [i for i in source.unlabelled if i.path.resolve() not in inside]
    for image in good:
        image.split, image.label_source = 'train', FROM_FOLDER
    annotated = [
        image
        for image in source.images
        if image.split == 'train' and image.path.resolve() in inside
    ]
    for image in good + annotated:
        image.known_good = True
    source.images += good
    source.notes.append(f'{len(good + annotated)} images are known to have no defect.')


def choose_known_good(good: Sequence[SourceImage], labelled: int, seed: int) -> list[SourceImage]:
    """Chooses known-good images to train with: all of them, or as many as the limit allows.

    Args:
        good: All of them.
        labelled: Number of labelled images that they stand beside.
        seed: Another seed gives another choice; of a smaller number it is part of the larger one.
    """
    ordered, _ = stratified_order(good, seed, 'known good')
    return ordered[: max(1, round(KNOWN_GOOD_PER_LABELLED * labelled))]


def find_contradictions(source: Source) -> list[Problem]:
    """Known-good images whose pixels occur in an image with a labelled defect."""
    defects = {image.pixel_hash: image for image in source.images if image.boxes}
    return [
        Problem(
            DUPLICATE,
            image.path,
            f'is said to be known good but has the same pixels as {defects[image.pixel_hash].path},'
            ' which has a labelled defect',
            'remove one of the two, or let --fix leave it out',
            image.name,
        )
        for image in source.images
        if image.known_good and image.pixel_hash and image.pixel_hash in defects
    ]


def _refuse_boxes(source: Source, inside: set[Path], folder: Path) -> None:
    wrong = [i for i in source.images if i.boxes and i.path.resolve() in inside]
    if wrong:
        raise UserError(
            f'{len(wrong)} images in --known-good-dir {folder} have labelled defects, such as '
            f'{wrong[0].path.name}; move them out, or name a folder of good images alone'
        )
