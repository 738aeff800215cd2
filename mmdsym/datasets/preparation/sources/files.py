"""Finding files in a source: deterministic listings, splits by folder, names without collision."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath

from mmdsym.errors import UserError

IMAGE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})

SPLIT_WORDS = {
    'train': 'train',
    'training': 'train',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'test': 'test',
    'testing': 'test',
}

_BESIDE_A_SPLIT = frozenset(
    {'', 'annotations', 'data', 'image', 'images', 'img', 'imgs', 'labels', 'set', 'split'}
)


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


def split_of_folder(path: Path, root: Path) -> str | None:
    """The split that a folder above a file names, the closest one first; None without one.

    A folder called `train` counts before one that merely has the word in its name, such as
    `train2017` or `val_images`.
    """
    folders = path.relative_to(root).parent.parts[::-1]
    words = (SPLIT_WORDS.get(folder.lower()) for folder in folders)
    splits = (*words, *map(_split_in, folders))
    return next((split for split in splits if split), None)


def split_of_name(path: Path, root: Path) -> str | None:
    """The split that a file's name or a folder above it names, such as `instances_val2017`."""
    for part in reversed(PurePath(path.relative_to(root)).parts):
        for word in _words(part):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not blank, without the mark that Windows puts before UTF-8.

    Raises:
        UserError: When it is no text in UTF-8.
    """
    try:
        text = path.read_text('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'{path} cannot be read as text in UTF-8 ({error}); save it as such'
        ) from error
    return [line.strip() for line in text.split('\n') if line.strip()]


def subfolder(folder: Path, *names: str) -> Path | None:
    """The first subfolder with one of the names, whatever their case; None without one."""
    if not folder.is_dir():
        return None
    present = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def _split_in(folder: str) -> str | None:
    """The split that a folder's name says, and nothing else: test_bench is no split."""
    words = set(_words(folder)) - _BESIDE_A_SPLIT
    return SPLIT_WORDS.get(words.pop()) if len(words) == 1 else None


def _words(name: str) -> list[str]:
    return re.split(r'[^a-z]+', name.lower())


def _is_hidden(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return any(part.startswith('.') or part == '__MACOSX' for part in parts)
