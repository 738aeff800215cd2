"""Boxes between the frame of an image and that of one of its tiles, as pure functions."""

from __future__ import annotations

from mmdsym.tiling.grid import Window

Edges = tuple[float, float, float, float]


def visible_share(edges: Edges, window: Window) -> float:
    """Share of a box's area that lies in a window, in [0, 1]."""
    x1, y1, x2, y2 = edges
    width = min(x2, window.x2) - max(x1, window.x1)
    height = min(y2, window.y2) - max(y1, window.y1)
    if width <= 0 or height <= 0:
        return 0.0
    return min(width * height / ((x2 - x1) * (y2 - y1)), 1.0)


def cut_box(edges: Edges, window: Window) -> Edges:
    """The part of a box that lies in a window, in pixels from the window's corner."""
    x1, y1, x2, y2 = edges
    return (
        max(x1, window.x1) - window.x1,
        max(y1, window.y1) - window.y1,
        min(x2, window.x2) - window.x1,
        min(y2, window.y2) - window.y1,
    )


def to_image(edges: Edges, x: float, y: float) -> Edges:
    """A box of a tile in pixels of its image.

    Args:
        edges: In pixels from the tile's corner.
        x: Where the tile's left edge lies in the image.
        y: Where its top edge lies.
    """
    x1, y1, x2, y2 = edges
    return x1 + x, y1 + y, x2 + x, y2 + y
