"""The suggested images at a glance."""

from __future__ import annotations

import io
import re

from PIL import Image

from mmdsym.errors import UserError
from mmdsym.image_files import read_rgb
from mmdsym.visualization.sheet import CLASS_COLOURS, Box, compose_sheet, draw_panel

from .suggesting import Suggestion, Suggestions

MOST_PANELS = 24
_COLUMNS = 4


def as_png(suggestions: Suggestions) -> bytes:
    """Draws the best images with their pre-labels and reasons.

    Raises:
        UserError: An image cannot be read.
    """
    shown = suggestions.images[:MOST_PANELS]
    title = f'{len(suggestions.images)} of {suggestions.looked_at} images to label next'
    if len(shown) < len(suggestions.images):
        title += f', the first {len(shown)} shown'
    sheet = compose_sheet(
        [[_panel(entry, suggestions.classes)] for entry in shown],
        f'{title} | boxes of {suggestions.model}',
        _COLUMNS,
    )
    stream = io.BytesIO()
    sheet.save(stream, format='PNG', optimize=True)
    return stream.getvalue()


def _panel(entry: Suggestion, classes: tuple[str, ...]) -> Image.Image:
    try:
        image = read_rgb(entry.image.path)
    except (OSError, ValueError) as error:
        raise UserError(f'the image {entry.image.path} cannot be read: restore it.') from error
    found = entry.boxes
    boxes = [
        Box(
            tuple(corners),
            f'{classes[label]} {score:.2f}',
            CLASS_COLOURS[label % len(CLASS_COLOURS)],
        )
        for corners, label, score in zip(
            found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]
    # The best box last, so that it lies on top; the table has the reason at full length.
    reason = re.sub(r' \([^()]*\)', '', entry.reason)
    return draw_panel(image, boxes[::-1], f'{entry.rank}. {reason}')
