"""labelme folders: a json of shapes for each image, beside it or elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmdsym.datasets.preparation.boxes import Edges
from mmdsym.datasets.preparation.records import (
    SECOND_ANNOTATION,
    UNREADABLE,
    Box,
    Problem,
    Source,
    SourceImage,
)
from mmdsym.datasets.preparation.sources.files import (
    list_files,
    list_images,
    names_for,
    split_of_folder,
)
from mmdsym.datasets.preparation.sources.folders import stated_path
from mmdsym.datasets.preparation.sources.pairing import ImagePairing, stem_of
from mmdsym.datasets.preparation.sources.regions import edges_of_png, edges_of_points
from mmdsym.datasets.preparation.sources.xml import UNREADABLE_CURE

Shape = tuple[str, Edges, str | None]
"""Class name, edges in pixels, and the group that it belongs to, None for none."""


def is_labelme(root: Path) -> bool:
    """Whether there is a json with labelme's list of shapes besides images."""
    for path in list_files(root, {'.json'}):
        with suppress(ValueError):
            load_shapes(path)
            return True
    return False


def read_labelme(root: Path) -> Source:
    """Reads all images with their jsons; the split comes from folders called train, val and so on.

    Rectangles, polygons, circles and masks become boxes. Shapes of one class and one group are
    one defect. An image without json has no labels; a json without shapes says that it has no
    defect.
    """
    paths = list_images(root)
    names = names_for(paths, root)
    images = [SourceImage(path, names[path], split=split_of_folder(path, root)) for path in paths]
    source = Source('labelme', root, [], images)
    pairing = ImagePairing(images, root)
    for path in list_files(root, {'.json'}):
        source.problems += _read_file(path, pairing)
    source.classes = sorted({label for image in source.images for label in image.labels})
    return source


def load_shapes(path: Path) -> dict[str, Any]:
    """What a labelme json says.

    Raises:
        ValueError: When it is none; the message says why.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f'is not readable as JSON ({error})') from error
    if not isinstance(content, dict) or not isinstance(content.get('shapes'), list):
        raise ValueError('is JSON but has no list of labelme shapes')
    return content


def boxes_of_shapes(shapes: Sequence[Any]) -> list[Box]:
    """Turns labelme's shapes into boxes.

    Raises:
        ValueError: When one of them encloses nothing or is none; the message says which.
    """
    boxes: list[Box] = []
    groups: dict[tuple[str, str | None], int] = {}
    for number, shape in enumerate(shapes, start=1):
        try:
            label, edges, group = read_shape(shape)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            raise ValueError(f'shape {number} is no region ({error})') from error
        place = None if group is None else groups.get((label, group))
        if place is None:
            groups[label, group] = len(boxes)
            boxes.append(Box(*edges, label=label))
        else:
            known = boxes[place]
            boxes[place] = Box(
                min(known.x1, edges[0]),
                min(known.y1, edges[1]),
                max(known.x2, edges[2]),
                max(known.y2, edges[3]),
                label,
            )
    return boxes


def read_shape(shape: Mapping[str, Any]) -> Shape:
    """Reads one shape.

    Raises:
        ValueError: When it is a point or a line, or lacks what its kind needs.
    """
    label = shape['label']
    if not isinstance(label, str) or not label:
        raise ValueError('no label')
    kind, points = shape.get('shape_type') or 'polygon', shape['points']
    if kind == 'circle':
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        edges = (x - radius, y - radius, x + radius, y + radius)
    elif kind == 'mask':
        edges = edges_of_png(shape['mask'], points[0])
    elif kind in ('rectangle', 'polygon'):
        edges = edges_of_points(points)
    else:
        raise ValueError(f'a {kind}')
    group = shape.get('group_id')
    return label, edges, None if group is None else str(group)


def _read_file(path: Path, pairing: ImagePairing) -> list[Problem]:
    """Gives the image of a json its boxes; returns what is wrong with the json."""
    try:
        content = load_shapes(path)
    except ValueError as error:
        return [_unreadable(path, str(error), _image_of(path, {}, pairing))]
    image = _image_of(path, content, pairing)
    if isinstance(image, Problem):
        return [image]
    if image.annotation is not None:
        message = f'speaks of {image.name}, as {image.annotation} does'
        cure = 'keep one of the two, or let --fix ignore this one'
        return [Problem(SECOND_ANNOTATION, path, message, cure)]
    image.annotation = path
    size = content.get('imageWidth'), content.get('imageHeight')
    image.declared_size = size if all(isinstance(side, int) for side in size) else None
    try:
        image.boxes = boxes_of_shapes(content['shapes'])
    except ValueError as error:
        return [_unreadable(path, str(error), image)]
    return []


def _image_of(
    path: Path, content: Mapping[str, Any], pairing: ImagePairing
) -> SourceImage | Problem:
    """The image that a json names, else the one of the same stem."""
    named = stated_path(str(content.get('imagePath') or ''))
    return pairing.find(path, [stem_of(named), path.stem], named)


def _unreadable(path: Path, reason: str, image: SourceImage | Problem) -> Problem:
    if isinstance(image, Problem):
        return Problem(UNREADABLE, path, reason, UNREADABLE_CURE)
    image.annotation = image.annotation or path
    return Problem(UNREADABLE, path, reason, UNREADABLE_CURE, image.name)
