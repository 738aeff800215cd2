"""Looking at every image and box of a source before it is used."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmdsym.datasets.preparation.boxes import at_least_a_pixel
from mmdsym.datasets.preparation.known_good import find_contradictions
from mmdsym.datasets.preparation.records import (
    DAMAGED,
    DUPLICATE,
    EMPTY_BOX,
    OUTSIDE,
    UNKNOWN_CLASS,
    Box,
    Problem,
    Source,
    SourceImage,
)
from mmdsym.errors import UserError
from mmdsym.image_files import (
    MOST_PIXELS,
    content_of,
    is_turned,
    is_turned_unseen,
    open_image,
    upright,
)

DEEP_BITS = 16
"""Of the deepest images that are prepared."""

TOLERANCE = 1.0
"""Pixels by which a box may stick out of its image: rounding, not a fault."""


def inspect(source: Source) -> list[Problem]:
    """Decodes every image, fills in sizes and hashes, and checks every box.

    Boxes that stick out by no more than `TOLERANCE` are clipped without a word; this is rounding.
    Those that are thinner than a pixel are widened to one, which a note of the source says.

    Returns:
        The problems found, those of reading the source included.

    Raises:
        UserError: A class has a name that cannot be written.
    """
    for label in source.classes:
        if not is_text(label):
            raise UserError(
                f'{source.root} has a class whose name is no text ({label!r}); correct it in the '
                'annotations'
            )
    problems = list(source.problems)
    everything = source.images + source.unlabelled
    thin: list[str] = []
    for image in tqdm(everything, desc='checking images', unit='image', disable=None):
        damage = measure(image)
        if damage:
            problems.append(
                Problem(
                    DAMAGED,
                    image.path,
                    damage,
                    'replace the file, or let --fix leave it out',
                    image.name,
                )
            )
            continue
        for box in image.boxes:
            problems += check_box(box, image, source.classes)
        fitted = [_fit(box, image) for box in image.boxes]
        thin += [
            f'one of {box.label} in {image.name} ({describe(box)})'
            for box, now in zip(image.boxes, fitted, strict=True)
            if now.width > box.width or now.height > box.height
        ]
        image.boxes = fitted
    if thin:
        source.notes.append(
            f'{len(thin)} boxes are thinner than a pixel, such as {thin[0]}; training would pass '
            'over them, so they were widened to one pixel.'
        )
    return problems + find_duplicates(source) + find_contradictions(source)


def measure(image: SourceImage) -> str:
    """Decodes an image and fills in its true size and hashes.

    The size is that after EXIF orientation, as image loaders apply it.

    Returns:
        Why the image cannot be used; empty when it can.
    """
    if not is_text(image.name):
        return 'has a name that is not UTF-8, which no json can hold'
    try:
        data = image.path.read_bytes()
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    image.file_hash = hashlib.sha256(data).hexdigest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with open_image(io.BytesIO(data)) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    return _too_large(f'{opened.width}x{opened.height}')
                if is_turned_unseen(opened):
                    return (
                        'is turned by EXIF or XMP data that training does not read in a '
                        f'{opened.format}: save it upright'
                    )
                pixels = upright(opened)
                content = content_of(pixels)
                deep = pixels.mode == 'I;16'
    except Image.DecompressionBombError:
        return _too_large(f'more than {2 * MOST_PIXELS:,}')
    # Decoders of damaged files raise almost anything, struct.error and KeyError among it.
    except Exception as error:
        return f'cannot be decoded ({error})'
    image.brightest = int(np.asarray(pixels).max()) if deep else None
    image.width, image.height = pixels.size
    image.pixel_hash = hashlib.sha256(content).hexdigest()
    return ''


def unused_bits(source: Source) -> list[str]:
    """Warns of cameras that put 10, 12 or 14 bits into files of 16, of which training sees 8.

    Returns:
        A sentence where images of 16 bits leave the upper half of their range to nobody.
    """
    values = [image.brightest for image in source.images + source.unlabelled]
    deep = [value for value in values if value is not None]
    used = max(deep, default=0).bit_length()
    # One bit less is a dark image, no camera of fewer bits.
    if not deep or used > DEEP_BITS - 2:
        return []
    return [
        f'{len(deep)} images of {DEEP_BITS} bits use {used} of them (no pixel is above {max(deep)} '
        f'of {2**DEEP_BITS - 1}), while training sees the upper 8: stretch them to the whole range '
        'before, or they are too dark.'
    ]


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; names of files and in jsons need not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_box(box: Box, image: SourceImage, classes: Sequence[str]) -> list[Problem]:
    """The problems of one box of a decoded image."""
    # A json speaks of many images; then the image says better where to look.
    own = image.annotation is not None and image.annotation.suffix != '.json'
    file = image.annotation if own else image.path
    problems = []
    if box.label not in classes:
        problems.append(
            Problem(
                UNKNOWN_CLASS,
                file,
                f'class {box.label!r} is none of {", ".join(classes)}',
                'correct the name, add it with --classes, or let --fix drop the box',
            )
        )
    inside = _fit(box, image)
    if not all(map(math.isfinite, (box.x1, box.y1, box.x2, box.y2))) or (
        inside.width <= 0 or inside.height <= 0
    ):
        problems.append(
            Problem(
                EMPTY_BOX,
                file,
                f'a box of {box.label} has no area inside its '
                f'{image.width}x{image.height} image ({describe(box)})',
                'correct the box, or let --fix drop it',
            )
        )
    elif overhang(box, image) > TOLERANCE:
        problems.append(
            Problem(
                OUTSIDE,
                file,
                f'a box of {box.label} ({describe(box)}) leaves its '
                f'{image.width}x{image.height} image',
                'correct the box, or let --fix clip it',
            )
        )
    return problems


def overhang(box: Box, image: SourceImage) -> float:
    """Pixels by which a box sticks out of its image; negative or 0 when it lies inside."""
    return max(-box.x1, -box.y1, box.x2 - image.width, box.y2 - image.height)


def clip(box: Box, image: SourceImage) -> Box:
    """The part of a box that lies inside its image; where there is any, at least a pixel of it."""

    def inside(value: float, limit: int) -> float:
        return min(max(value, 0.0), float(limit))

    edges = (
        inside(box.x1, image.width),
        inside(box.y1, image.height),
        inside(box.x2, image.width),
        inside(box.y2, image.height),
    )
    return Box(*at_least_a_pixel(edges, image.width, image.height), box.label, box.ignore)


def describe(box: Box) -> str:
    """The box in words for messages, in pixel edges."""
    return f'x {box.x1:g}..{box.x2:g}, y {box.y1:g}..{box.y2:g}'


def find_duplicates(source: Source) -> list[Problem]:
    """Images whose pixels occur in validation or test and also among what trains."""
    held_out: dict[str, SourceImage] = {}
    for image in source.images:
        if image.split in ('val', 'test') and image.pixel_hash:
            held_out.setdefault(image.pixel_hash, image)
    training = [image for image in source.images if image.split == 'train']
    return [
        Problem(
            DUPLICATE,
            image.path,
            f'has the same pixels as {held_out[image.pixel_hash].path}, which is held out',
            'remove one of the two, or let --fix leave it out of training',
            image.name,
        )
        for image in training + source.unlabelled
        if image.pixel_hash in held_out
    ]


def repeated_images(source: Source) -> list[list[str]]:
    """Groups of images with the same pixels within one split, as names."""
    groups: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for image in source.images:
        if image.pixel_hash:
            groups[image.split, image.pixel_hash].append(image.name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def _too_large(size: str) -> str:
    return (
        f'has {size} pixels, and no image of more than {MOST_PIXELS:,} is read: cut it into parts '
        'first'
    )


def _fit(box: Box, image: SourceImage) -> Box:
    return clip(box, image) if overhang(box, image) <= TOLERANCE else box


def readable_size(path: Path) -> tuple[int, int] | None:
    """(width, height) from an image's header, EXIF orientation applied; None when unreadable."""
    try:
        with open_image(path) as opened:
            # Of a turned TIFF, Pillow gives the size as it is before or after, by its version.
            return upright(opened).size if is_turned(opened) else opened.size
    # As above: whatever the decoder of a damaged file raises.
    except Exception:
        return None
