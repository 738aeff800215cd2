"""Finding the image of a data set that an export speaks of."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import parse_qs, unquote, urlsplit

from mmdsym.datasets.preparation.records import SourceImage
from mmdsym.datasets.preparation.sources.files import IMAGE_SUFFIXES

_UPLOADED = re.compile(r'[0-9a-f]{8}-(.+)')
"""Label Studio puts eight digits and a dash before the name of a file that is uploaded."""


class ImageFinder:
    """Knows the images of a data set by name.

    Args:
        images: All of them.
    """

    def __init__(self, images: Sequence[SourceImage]) -> None:
        self._by_stem: dict[str, list[SourceImage]] = defaultdict(list)
        for image in images:
            self._by_stem[PurePosixPath(image.name).stem].append(image)

    def find(self, reference: str) -> SourceImage:
        """Returns the one image that a path, a link or a bare name means.

        Folders before the name and the extension count only where the name alone is not certain.

        Raises:
            LookupError: None fits, or several do; the message says which.
        """
        named = PureWindowsPath(_path_of(reference))
        candidates = self._by_stem.get(_stem(named), [])
        if not candidates and (uploaded := _UPLOADED.fullmatch(named.name)):
            named = PureWindowsPath(uploaded[1])
            candidates = self._by_stem.get(_stem(named), [])
        best = max((_shared(image, named) for image in candidates), default=0)
        fits = [image for image in candidates if _shared(image, named) == best]
        if not fits:
            raise LookupError(f'image {reference} is none of the data set')
        if len(fits) > 1:
            raise LookupError(f'image {reference} may be {fits[0].name} or {fits[1].name}')
        return fits[0]


def _path_of(reference: str) -> str:
    """The path in a link, such as `/data/local-files/?d=parts/a.png`."""
    link = urlsplit(reference)
    named = parse_qs(link.query).get('d')
    if named:
        return named[0]
    return unquote(link.path) if link.scheme or reference.startswith('/data/') else reference


def _stem(path: PureWindowsPath) -> str:
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _shared(image: SourceImage, named: PureWindowsPath) -> int:
    """How many parts of the path both have in common, from the end; names without extension."""
    known = PurePosixPath(image.name)
    pairs = zip(
        (known.stem, *reversed(known.parts[:-1])),
        (_stem(named), *reversed(named.parts[:-1])),
        strict=False,
    )
    same = [a == b for a, b in pairs] + [False]
    exact = named.name == known.name
    return 2 * same.index(False) + exact
