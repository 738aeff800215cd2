"""Opening image files of unknown origin with Pillow: few decoders, one limit, one colour rule."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

FORMATS = ('BMP', 'JPEG', 'PNG', 'TIFF', 'WEBP')
"""What is decoded, whatever a file is called; Pillow's other decoders are never run."""

MOST_PIXELS = 2**28
"""Of the largest image that is read, such as a sheet of 16384 x 16384 from a line camera."""

# Pillow's own limit refuses such sheets. It warns above this one and refuses twice as much, since a
# file may be made to fill the memory; OpenCV, which training decodes with, takes up to 2**30.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS

ORIENTATION = 0x0112
"""Tag of EXIF data that says how an image is turned or mirrored; 1 is upright."""


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


def is_turned(opened: Image.Image) -> bool:
    """Whether `upright` changes the image.

    Args:
        opened: From `open_image`.
    """
    return opened.getexif().get(ORIENTATION, 1) in range(2, 9)


def is_turned_unseen(opened: Image.Image) -> bool:
    """Whether an image is turned by data that OpenCV, which training decodes with, does not read.

    Pillow reads EXIF data of WebP too, and where there are none the XMP data of every format.

    Args:
        opened: From `open_image`; its pixels have not been asked for yet.
    """
    if not is_turned(opened):
        return False
    if opened.format == 'TIFF':
        return ORIENTATION not in opened.tag_v2
    exif = Image.Exif()
    exif.load(opened.info.get('exif', b''))
    return opened.format == 'WEBP' or ORIENTATION not in exif


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
