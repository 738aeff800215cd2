"""Draws boxes on images, and lays images out on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

GREEN: Colour = (60, 220, 90)
# Bright, told apart on grey metal, and none of them green, which is for ground truth.
CLASS_COLOURS: tuple[Colour, ...] = (
    (255, 99, 71),
    (79, 172, 254),
    (255, 206, 60),
    (214, 120, 255),
    (255, 150, 40),
    (64, 224, 224),
    (255, 130, 180),
    (180, 180, 255),
    (240, 200, 170),
    (200, 90, 90),
)
_BACKGROUND: Colour = (24, 26, 30)
_LIGHT: Colour = (232, 232, 232)
_GAP = 8
_MIN_SIDE, _MAX_SIDE = 400, 640
_LABEL_SIZE, _CAPTION_SIZE, _TITLE_SIZE = 15, 16, 24


@dataclass(frozen=True)
class Box:
    """A box to draw.

    Attributes:
        corners: (x1, y1, x2, y2) in pixels of the image before it is enlarged.
        text: What is written at the box.
        colour: (red, green, blue), each 0..255.
    """

    corners: tuple[float, float, float, float]
    text: str
    colour: Colour


def enlargement(width: int, height: int) -> float:
    """Returns the factor that brings an image's longer side into 400..640 pixels."""
    longer = max(width, height)
    return min(max(longer, _MIN_SIDE), _MAX_SIDE) / longer


def draw_panel(image: Image.Image, boxes: Sequence[Box], caption: str) -> Image.Image:
    """Draws boxes with their texts on an enlarged copy, with a caption above.

    Args:
        image: RGB.
        boxes: May be empty and may reach over the border; the last ones lie on top.
        caption: One line; cut off where it is longer than the panel is wide.

    Returns:
        A new RGB image.
    """
    factor = enlargement(*image.size)
    size = tuple(max(1, round(side * factor)) for side in image.size)
    large = image.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(large)
    for box in boxes:
        pen.rectangle(_scaled(box.corners, factor, size), outline=box.colour, width=2)
    # After all frames, so that no frame crosses a text.
    taken: list[Rectangle] = []
    for box in reversed(boxes):
        taken.append(_write_label(pen, box, factor, size, taken))
    bar = _CAPTION_SIZE + 8
    panel = Image.new('RGB', (size[0], size[1] + bar), _BACKGROUND)
    ImageDraw.Draw(panel).text((2, 2), caption, fill=_LIGHT, font=_font(_CAPTION_SIZE))
    panel.paste(large, (0, bar))
    return panel


def compose_sheet(
    entries: Sequence[Sequence[Image.Image]], title: str, columns: int = 3
) -> Image.Image:
    """Lays out entries, each of panels that belong side by side, under a title.

    Args:
        entries: At least one, each of at least one panel.
        title: Broken into lines where it is longer than the sheet is wide.
        columns: Entries in a row, at most.
    """
    strips = [_side_by_side(panels, _GAP // 2) for panels in entries]
    rows = [
        _side_by_side(strips[start : start + columns], 3 * _GAP)
        for start in range(0, len(strips), columns)
    ]
    width = max(row.width for row in rows) + 2 * _GAP
    lines = _wrap(title, width - 2 * _GAP)
    head = len(lines) * (_TITLE_SIZE + 8) + _GAP
    height = head + sum(row.height + _GAP for row in rows) + _GAP
    sheet = Image.new('RGB', (width, height), _BACKGROUND)
    text = '\n'.join(lines)
    ImageDraw.Draw(sheet).text((_GAP, _GAP), text, fill=_LIGHT, font=_font(_TITLE_SIZE))
    top = head + _GAP
    for row in rows:
        sheet.paste(row, (_GAP, top))
        top += row.height + _GAP
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _scaled(
    corners: Sequence[float], factor: float, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Scales corners and brings them inside the image, in order."""
    x1, y1, x2, y2 = (value * factor for value in corners)
    xs = sorted(min(max(x, 0), size[0] - 1) for x in (x1, x2))
    ys = sorted(min(max(y, 0), size[1] - 1) for y in (y1, y2))
    return xs[0], ys[0], xs[1], ys[1]


def _write_label(
    pen: ImageDraw.ImageDraw,
    box: Box,
    factor: float,
    size: tuple[int, int],
    taken: Sequence[Rectangle],
) -> Rectangle:
    """Writes the text above its box, else inside it, below texts that stand there already."""
    font = _font(_LABEL_SIZE)
    text = ' '.join(box.text.split())  # one line, whatever a class is called
    left, top, _, _ = _scaled(box.corners, factor, size)
    width, height = pen.textlength(text, font=font) + 6, _LABEL_SIZE + 5
    x = max(0, min(left, size[0] - width))
    heights = [top - height] if top >= height else []
    heights += [top + step * (height + 1) for step in range(4)]
    places = [(x, y, x + width, y + height) for y in heights]
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    place = next(free, places[0])
    pen.rectangle(place, fill=box.colour)
    pen.text((x + 3, place[1] + 1), text, fill=(0, 0, 0), font=font)
    return place


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _side_by_side(images: Sequence[Image.Image], gap: int) -> Image.Image:
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new('RGB', (width, max(image.height for image in images)), _BACKGROUND)
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


def _wrap(text: str, width: int) -> list[str]:
    font, lines = _font(_TITLE_SIZE), ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
