"""What a report is made of: sections of text, tables, pictures and listings."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

_SHOWN_WIDTH = 1600


@dataclass(frozen=True)
class Picture:
    """A picture of the page, which is a file beside it as well.

    Attributes:
        name: Name of the file without ``.png``; letters, digits and underscores.
        caption: How to read it.
        png: The file.
        shown: What the page embeds, in place of the file where that is smaller.
        media_type: Of ``shown``.
    """

    name: str
    caption: str
    png: bytes
    shown: bytes = b''
    media_type: str = 'image/png'

    @classmethod
    def of_photographs(cls, name: str, caption: str, image: Image.Image) -> Picture:
        """Makes a picture of which the page holds a JPEG, since metal compresses badly as PNG.

        Args:
            name: As above.
            caption: As above.
            image: RGB; at most 1,600 pixels wide of it go into the page.
        """
        shown = image.copy()
        shown.thumbnail((_SHOWN_WIDTH, 100 * _SHOWN_WIDTH))
        return cls(
            name,
            caption,
            _encode(image, 'PNG'),
            _encode(shown, 'JPEG', quality=80, optimize=True),
            'image/jpeg',
        )

    @property
    def data_uri(self) -> str:
        """What the page embeds, as a ``data:`` address."""
        text = base64.b64encode(self.shown or self.png).decode('ascii')
        return f'data:{self.media_type};base64,{text}'


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, the others are numbers or short texts.

    Attributes:
        head: Names of the columns.
        rows: As long as ``head`` each.
        caption: How to read it; may be empty.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ''


@dataclass(frozen=True)
class Section:
    """A part of the page; its title stands where the sections are listed.

    Attributes:
        text: Paragraphs.
        tables, pictures: In this order, below the text.
        listing: Commands or a config, shown as they are.
        absent: Whether the run has nothing to show here, which the text then says.
    """

    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    listing: str = ''
    absent: bool = False


def absent(sentence: str) -> Section:
    """Returns a section that says in one sentence what the run does not have."""
    return Section((sentence,), absent=True)


def per_cent(share: float | None) -> str:
    """Returns a share in [0, 1] in per cent with one decimal; a dash where it is undefined."""
    return '–' if share is None or share != share else f'{100 * share:.1f}'


def _encode(image: Image.Image, kind: str, **settings) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()
