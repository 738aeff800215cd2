"""A synthetic image as a file that says itself what it shows."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from .cache_manifest import is_count
from .labelled_images import LabelledImages, is_grey
from .layout import ImageLayout
from .painting import Outcome, SyntheticImage, labelled_boxes, put_box

_NAME = 'mmdsym'
# Above what any PNG of the pixels takes, for the record.
_RECORD_BYTES = 1 << 20


def make_record(key: str, image: SyntheticImage) -> dict:
    """Returns what is kept of an image beside its pixels, as it comes back from the file."""
    record = dict(
        key=key,
        index=image.index,
        pixels=_digest_pixels(image.pixels),
        source=image.source,
        boxes=[asdict(box) for box in image.boxes],
        outcomes=[asdict(outcome) for outcome in image.outcomes],
    )
    return json.loads(json.dumps(record))


def encode(pixels: np.ndarray, record: Mapping) -> bytes:
    """Returns a PNG, of one channel where the three are equal, with its record."""
    info = PngImagePlugin.PngInfo()
    info.add_text(_NAME, json.dumps(record, separators=(',', ':')))
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if is_grey(pixels) else pixels))
    image.save(stream, 'PNG', pnginfo=info)
    return stream.getvalue()


def read_record(
    path: Path, key: str, layout: ImageLayout, labelled: LabelledImages
) -> tuple[dict, bytes] | None:
    """Reads an image of unknown origin.

    Returns:
        Its record and the content of the file; ``None`` unless it is, to the byte, what would be
        written for this key, and its labels are those of its layout.
    """
    size = labelled[layout.source].size
    try:
        status = path.lstat()
        if status.st_size > 6 * size[0] * size[1] + _RECORD_BYTES or path.is_symlink():
            return None
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=['PNG']) as image:
            # Before anything is unpacked.
            if image.size != size:
                return None
            record = json.loads(image.text[_NAME])
            pixels = np.asarray(image.convert('RGB'))
        intact = (
            (record['key'], record['index']) == (key, layout.index)
            and record['pixels'] == _digest_pixels(pixels)
            and _follows(record, layout, labelled)
            and encode(pixels, record) == content
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SyntaxError,
        RecursionError,
        Image.DecompressionBombError,
    ):
        return None
    return (record, content) if intact else None


def _follows(record: Mapping, layout: ImageLayout, labelled: LabelledImages) -> bool:
    """Says whether a record tells of the boxes that its layout and its outcomes lead to."""
    boxes = labelled_boxes(labelled[layout.source])
    outcomes = [Outcome(**outcome) for outcome in record['outcomes']]
    for operation, outcome in zip(layout.operations, outcomes, strict=True):
        if outcome.label != operation.label or not is_count(outcome.rejected):
            return False
        if outcome.given_up is False:
            put_box(boxes, operation)
        elif outcome.given_up is not True or not outcome.rejected:
            return False
    expected = json.loads(json.dumps([asdict(box) for box in boxes]))
    return record['source'] == layout.source and record['boxes'] == expected


def _digest_pixels(pixels: np.ndarray) -> str:
    shape = json.dumps(pixels.shape).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()
