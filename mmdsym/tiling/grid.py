"""Where the tiles of an image lie."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

from mmdsym.errors import UserError

MIN_SIZE = 32
MAX_OVERLAP = 0.9


class Window(NamedTuple):
    """A tile's place in its image, in pixel edges, as boxes have them."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class Tiling:
    """Square tiles that overlap.

    Args:
        size: Side of a tile in pixels, at least 32. An image that is smaller is one tile.
        overlap: Share of its side that a tile has in common with its neighbour, in [0, 0.9]. The
            last tile of a row or column is moved back into the image and shares more.

    Raises:
        UserError: A number is out of its range.
    """

    size: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.size < MIN_SIZE:
            raise UserError(f'tiles of {self.size} pixels are too small; give at least {MIN_SIZE}')
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise UserError(
                f'an overlap of {self.overlap:g} is outside [0, {MAX_OVERLAP}]; 0.2 lets '
                'neighbours share a fifth of their side'
            )

    @property
    def shared_pixels(self) -> int:
        """Pixels that neighbours have in common: a box up to this size is whole in some tile."""
        return int(self.overlap * self.size)

    def windows(self, width: int, height: int) -> list[Window]:
        """Places the tiles of an image, row by row; together they cover it.

        Args:
            width: The image's width in pixels.
            height: Its height.

        Raises:
            UserError: The package SAHI is not installed.
        """
        slices = require_sahi().get_slice_bboxes(
            image_height=height,
            image_width=width,
            slice_height=self.size,
            slice_width=self.size,
            overlap_height_ratio=self.overlap,
            overlap_width_ratio=self.overlap,
        )
        return [Window(*edges) for edges in slices]


def require_sahi() -> ModuleType:
    """Returns the module `sahi.slicing`.

    Raises:
        UserError: The package is not installed.
    """
    try:
        from sahi import slicing
    except ImportError as error:
        raise UserError(
            f'tiles need the package sahi, which cannot be loaded ({error}); install it with '
            "pip install 'mmdsym[tiles]'"
        ) from error
    return slicing
