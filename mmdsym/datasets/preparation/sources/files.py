"""Finding files in a source: deterministic listings and names that do not collide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

IMAGE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})


def list_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """All files below a folder with one of the suffixes, sorted; hidden ones are left out."""
    wanted = set(suffixes)
    return sorted(
        path
        for path in folder.rglob('*')
        if path.suffix.lower() in wanted and path.is_file() and not _is_hidden(path, folder)
    )


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted."""
    return list_files(folder, IMAGE_SUFFIXES)


def names_for(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """Gives each image its name in the prepared data set.

    Plain file names where they are unique (also on file systems that ignore case), otherwise
    the path below the source's root for all of them.
    """
    paths = list(paths)
    counts = Counter(path.name.lower() for path in paths)
    if all(count == 1 for count in counts.values()):
        return {path: path.name for path in paths}
    return {path: path.relative_to(root).as_posix() for path in paths}


def subfolder(folder: Path, *names: str) -> Path | None:
    """The first subfolder with one of the names, whatever their case; None without one."""
    if not folder.is_dir():
        return None
    present = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def _is_hidden(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return any(part.startswith('.') or part == '__MACOSX' for part in parts)
