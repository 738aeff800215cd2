"""Comparing the folders that annotations and images lie in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath, PureWindowsPath

CONTAINERS = frozenset(
    {
        *('annotation', 'annotations', 'labels', 'label', 'xml', 'xmls', 'json', 'jsons'),
        *('image', 'images', 'img', 'imgs', 'jpegimages'),
    }
)
"""Folders that say what kind of files they hold, not which."""

Folders = tuple[str, ...]


def folders_of(path: Path, root: Path) -> Folders:
    """The telling folders above a file, from the root on."""
    return _telling(path.relative_to(root).parent.parts)


def folders_in(named: PurePath) -> Folders:
    """The telling folders in a path that an annotation states."""
    parts = named.parts[1 if named.anchor else 0 : -1]
    # What stands before a step upwards is another folder's place.
    while '..' in parts:
        parts = parts[parts.index('..') + 1 :]
    return _telling(parts)


def stated_path(text: str) -> PureWindowsPath:
    """A path as an annotation states it; both kinds of slash occur."""
    return PureWindowsPath(text)


def shared_start(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts both have in common from the first on."""
    for count, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return count
    return min(len(first), len(second))


def shared_end(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts both have in common from the last backwards."""
    return shared_start(first[::-1], second[::-1])


def _telling(parts: Iterable[str]) -> Folders:
    return tuple(part for part in parts if part.lower() not in CONTAINERS)
