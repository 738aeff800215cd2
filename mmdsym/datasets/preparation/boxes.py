"""Box conventions of COCO, Pascal VOC and YOLO, as pure functions.

Inside the project a box is given by its edges: (x1, y1, x2, y2) in pixels, where 0 is the outer
edge of the first pixel and the image width the outer edge of the last. COCO is the same with
width and height. YOLO is the same relative to the image size. Pascal VOC counts pixels from 1 and
includes the last one, so a box over a whole 200 px image reads 1, 1, 200, 200.
"""

from __future__ import annotations

from collections.abc import Iterable

Edges = tuple[float, float, float, float]

DIGITS = 4
"""Decimals of a pixel that are written; what is finer is the rounding of formats."""


def at_least_a_pixel(edges: Edges, width: int, height: int) -> Edges:
    """Widens what is thinner than a pixel to one pixel, since training passes over such boxes.

    Args:
        edges: A box inside the image.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        The box with the same centre, or moved as far as it needs to stay inside the image; one
        without area as it is.
    """
    x1, y1, x2, y2 = edges
    if x2 <= x1 or y2 <= y1:
        return edges
    (x1, x2), (y1, y2) = _widen(x1, x2, width), _widen(y1, y2, height)
    return x1, y1, x2, y2


def _widen(start: float, end: float, limit: int) -> tuple[float, float]:
    if round(end - start, DIGITS) >= 1:
        return start, end
    start = min(max((start + end - 1) / 2, 0), limit - 1)
    return start, start + 1


def edges_to_coco(edges: Edges) -> Edges:
    """Edges to COCO's (x, y, width, height)."""
    x1, y1, x2, y2 = edges
    return x1, y1, x2 - x1, y2 - y1


def coco_to_edges(bbox: Edges) -> Edges:
    """COCO's (x, y, width, height) to edges."""
    x, y, width, height = bbox
    return x, y, x + width, y + height


def edges_to_voc(edges: Edges) -> Edges:
    """Edges to VOC's (xmin, ymin, xmax, ymax), counted from 1, last pixel included."""
    x1, y1, x2, y2 = edges
    return x1 + 1, y1 + 1, x2, y2


def voc_to_edges(corners: Edges, one_based: bool = True) -> Edges:
    """VOC's (xmin, ymin, xmax, ymax) to edges.

    Args:
        corners: The four numbers of a `bndbox`.
        one_based: True for Pascal VOC's own convention; False for files that already hold edges
            counted from 0, as many converters write them.
    """
    xmin, ymin, xmax, ymax = corners
    return (xmin - 1, ymin - 1, xmax, ymax) if one_based else (xmin, ymin, xmax, ymax)


def voc_is_one_based(corners: Iterable[Edges]) -> bool:
    """Tells from all boxes of a data set whether they count from 1, as Pascal VOC does.

    Boxes that touch the left or top border decide: they start at 1 or at 0, whichever is more
    common. NEU-DET has 1,500 coordinates at 1 and none at 0 (and up to 200 in 200 px images), so
    it counts from 1. Without such boxes Pascal VOC's own convention is assumed.
    """
    starts = [start for box in corners for start in box[:2]]
    return starts.count(0) <= starts.count(1)


def edges_to_yolo(edges: Edges, width: int, height: int) -> Edges:
    """Edges in pixels to YOLO's (centre x, centre y, width, height) relative to the image."""
    x1, y1, x2, y2 = edges
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height


def yolo_to_edges(relative: Edges, width: int, height: int) -> Edges:
    """YOLO's (centre x, centre y, width, height) relative to the image to edges in pixels."""
    cx, cy, w, h = relative
    return (
        (cx - w / 2) * width,
        (cy - h / 2) * height,
        (cx + w / 2) * width,
        (cy + h / 2) * height,
    )
