"""Opening image files of unknown origin with Pillow: few decoders, and one rule for colours."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

FORMATS = ('BMP', 'JPEG', 'PNG', 'TIFF', 'WEBP')
"""What is decoded, whatever a file is called; Pillow's other decoders are never run."""


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """Opens an image of one of `FORMATS`; to be used as a context.

    Raises:
        OSError: It is no such image.
    """
    return Image.open(source, formats=FORMATS)


def upright(opened: Image.Image) -> Image.Image:
    """Turns an image as its EXIF data say; 16 bits come out as mode `I;16`, all others as they are.

    Args:
        opened: From `open_image`.

    Raises:
        ValueError: Its pixels have 32 bits, of which nobody knows what is white.
    """
    # Pillow before version 11 opens PNGs of 16 bits as whole numbers of 32.
    deep = opened.mode.startswith('I;16') or (opened.mode == 'I' and opened.format == 'PNG')
    if opened.mode in ('I', 'F') and not deep:
        raise ValueError('its pixels have 32 bits; save it with 8 or 16')
    turned = ImageOps.exif_transpose(opened)
    return Image.fromarray(np.asarray(turned).astype(np.uint16)) if deep else turned


def as_rgb(turned: Image.Image) -> Image.Image:
    """Shows an image as training loads it, in three channels of 8 bits.

    Of 16 bits the upper 8 count, grey is repeated, a palette is looked up, transparency is left
    out, and CMYK becomes what Pillow makes of it.

    Args:
        turned: From `upright`.
    """
    if turned.mode == 'I;16':
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    return turned.convert('RGB')


def read_rgb(path: Path) -> Image.Image:
    """Reads an image file as training does.

    Raises:
        OSError: It is damaged, or of another format.
        ValueError: Its pixels have 32 bits.
    """
    with open_image(path) as opened:
        return as_rgb(upright(opened))


def content_of(turned: Image.Image) -> bytes:
    """Returns size and pixels, by which images are told apart.

    Images of 8 bits are alike where they look alike, whatever their format; in those of 16 bits
    every bit counts, since different ones can look alike once they are reduced to 8.

    Args:
        turned: From `upright`.
    """
    pixels = turned if turned.mode == 'I;16' else turned.convert('RGB')
    depth = ' of 16 bits' if turned.mode == 'I;16' else ''
    return f'{turned.size}{depth}'.encode() + pixels.tobytes()
