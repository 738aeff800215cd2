"""The COCO file of a cache."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from .cache_manifest import ANNOTATIONS, image_name, is_count, read_json
from .labelled_images import LabelledImages
from .layout_config import KINDS
from .size_distribution import BUCKETS


def make_annotations(records: Mapping[int, Mapping], labelled: LabelledImages) -> dict:
    """Returns the COCO document. Image ids are the numbers plus 1.

    Args:
        records: Of all images, by number.
        labelled: What the images were made from.
    """
    images, annotations = [], []
    for index in range(len(records)):
        source = labelled[records[index]['source']]
        images.append(
            dict(
                id=index + 1,
                file_name=image_name(index),
                width=source.size[0],
                height=source.size[1],
                source=Path(source.path).name,
            )
        )
        for box in records[index]['boxes']:
            annotations.append(_coco_box(len(annotations) + 1, index + 1, box))
    categories = [dict(id=label + 1, name=name) for label, name in enumerate(labelled.classes)]
    return dict(categories=categories, images=images, annotations=annotations)


def read_annotations(folder: Path) -> dict:
    """Reads the COCO document of a cache, and checks all that is used of it.

    It may come from anywhere: it can only name the images that a cache has, and these must be
    plain files, so that nothing outside of the folder is ever opened in its name.

    Raises:
        ValueError: It is not what :func:`make_annotations` writes, or an image is a link.
        OSError: It, or an image, is missing or cannot be read.
    """
    content = read_json(folder / ANNOTATIONS)
    try:
        sound = _is_sound(content)
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(f'{folder / ANNOTATIONS} is no list of synthetic images')
    if not stat.S_ISDIR((folder / 'images').lstat().st_mode):
        raise ValueError(f'{folder / "images"} is no folder')
    for image in content['images']:
        path = folder / 'images' / image['file_name']
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f'{path} is no plain file')
    return content


def _is_sound(content: dict) -> bool:
    images, categories = content['images'], content['categories']
    return (
        all(_is_image(index, image) for index, image in enumerate(images))
        and all(isinstance(category['name'], str) for category in categories)
        and [category['id'] for category in categories] == list(range(1, len(categories) + 1))
        and all(_is_box(box, images, len(categories)) for box in content['annotations'])
    )


def _is_image(index: int, image: dict) -> bool:
    return (
        (image['id'], image['file_name']) == (index + 1, image_name(index))
        and all(is_count(image[side]) and image[side] > 0 for side in ('width', 'height'))
        and isinstance(image['source'], str)
    )


def _is_box(box: dict, images: list[dict], categories: int) -> bool:
    return (
        is_count(box['image_id'])
        and 1 <= box['image_id'] <= len(images)
        and is_count(box['category_id'])
        and 1 <= box['category_id'] <= categories
        and _lies_inside(box['bbox'], images[box['image_id'] - 1])
        and box['iscrowd'] in (0, 1)
        and box['painted'] in (None, *KINDS)
        and box['size'] in (None, *BUCKETS)
    )


def _lies_inside(bbox: list, image: dict) -> bool:
    if len(bbox) != 4 or not all(type(value) in (int, float) for value in bbox):
        return False
    x, y, width, height = bbox
    # Sums and differences of floating-point numbers may lie a little beyond the border.
    inside = x + width <= image['width'] + 1 and y + height <= image['height'] + 1
    # Comparisons with NaN are false.
    return inside and min(bbox) >= 0


def _coco_box(identity: int, image: int, box: Mapping) -> dict:
    x1, y1, x2, y2 = box['box']
    return dict(
        id=identity,
        image_id=image,
        category_id=box['label'] + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=(x2 - x1) * (y2 - y1),
        iscrowd=int(box['ignored']),
        painted=box['painted'],
        size=box['size'],
    )
