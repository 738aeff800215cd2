"""The images that a COCO json lists, and nothing else of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mmdsym.datasets.preparation.inside import inner_path
from mmdsym.errors import UserError


@dataclass(frozen=True)
class ListedImage:
    """One image of a list.

    Attributes:
        name: Its path below the data set's images/, with forward slashes.
        path: The file.
    """

    name: str
    path: Path


def read_image_list(ann_file: Path, images_dir: Path) -> list[ListedImage]:
    """Reads which images a COCO json lists; its annotations are not looked at.

    Raises:
        UserError: It cannot be read, lists no image, or an image is missing or lies elsewhere.
    """
    try:
        names = [str(i['file_name']) for i in json.loads(ann_file.read_bytes())['images']]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f'{ann_file} cannot be read as a COCO list of images ({error!r}): make it with '
            'tools/prepare_dataset.py.'
        ) from None
    if not names:
        raise UserError(f'{ann_file} lists no image: name a list of unlabelled images.')
    images = [ListedImage(name, inner_path(images_dir, name, ann_file)) for name in names]
    for image in images:
        if not image.path.is_file():
            raise UserError(f'the image {image.path} does not exist: correct --images.')
    return images
