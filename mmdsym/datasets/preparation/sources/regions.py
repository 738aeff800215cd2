"""The edges of what annotators draw besides boxes: polygons and masks."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmdsym.datasets.preparation.boxes import Edges, coco_to_edges


def edges_of_points(points: Sequence[Sequence[float]]) -> Edges:
    """The edges around points.

    Args:
        points: (x, y) pairs in pixels, at least one.

    Raises:
        ValueError: When there is none, or one is no pair of numbers.
    """
    pairs = [(float(x), float(y)) for x, y in points]
    if not pairs:
        raise ValueError('a shape without points')
    xs, ys = zip(*pairs, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def edges_of_segmentation(segmentation: Any) -> Edges:
    """The edges around COCO's `segmentation`.

    Args:
        segmentation: A list of polygons, each x1, y1, x2, y2, ..., or a mask as run lengths:
            `size` (height, width) with `counts`, a list or COCO's compressed text.

    Raises:
        ValueError: When it is neither, or encloses nothing.
    """
    if isinstance(segmentation, Mapping):
        return _edges_of_run_lengths(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError('neither bbox nor segmentation')
    if not all(isinstance(polygon, list) and len(polygon) % 2 == 0 for polygon in segmentation):
        raise ValueError('a polygon that is no list of x, y, x, y, ...')
    return edges_of_points(
        [pair for polygon in segmentation for pair in zip(polygon[::2], polygon[1::2], strict=True)]
    )


def edges_of_png(text: str, corner: Sequence[float]) -> Edges:
    """The edges around the drawn pixels of a mask that is a PNG in base64.

    Args:
        text: The mask; any pixel that is not 0 belongs to it.
        corner: (x, y) of its top left pixel in the image.

    Raises:
        ValueError: When it cannot be decoded or is empty.
    """
    try:
        data = io.BytesIO(base64.b64decode(text, validate=True))
        with Image.open(data, formats=('PNG',)) as opened:
            mask = np.asarray(opened.convert('L')) > 0
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'a mask that cannot be decoded ({error})') from error
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError('an empty mask')
    x, y = (float(value) for value in corner)
    return x + columns[0], y + rows[0], x + columns[-1] + 1.0, y + rows[-1] + 1.0


def _edges_of_run_lengths(segmentation: Mapping[str, Any]) -> Edges:
    # Imported late: it is compiled code that no other layout needs.
    from pycocotools import mask

    height, width = (int(side) for side in segmentation.get('size', ()))
    counts = segmentation.get('counts')
    if height < 1 or width < 1:
        raise ValueError('a mask without size')
    if isinstance(counts, list):
        if sum(map(int, counts)) != height * width or min(counts) < 0:
            raise ValueError('a mask whose run lengths do not fill its size')
        encoded = mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)
    elif isinstance(counts, str):
        encoded = {'size': [height, width], 'counts': counts.encode()}
    else:
        raise ValueError('a mask without run lengths')
    edges = coco_to_edges(tuple(float(value) for value in mask.toBbox(encoded)))
    inside = edges[0] >= 0 and edges[1] >= 0 and edges[2] <= width and edges[3] <= height
    if not all(map(math.isfinite, edges)) or not inside:
        raise ValueError('a mask that is damaged')
    if edges[2] <= edges[0] or edges[3] <= edges[1]:
        raise ValueError('an empty mask')
    return edges
