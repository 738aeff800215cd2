"""Folders that are there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdsym.atomic_file import sync


@contextmanager
def drafted_folder(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """Yields an empty folder; what lies there at the end becomes ``folder``.

    What a killed process has left is cleared up first. Where the block fails, nothing is left
    behind, and an earlier folder stays as it was.

    Args:
        folder: The name.
        own: See :func:`put_in_place`.

    Raises:
        OSError: It cannot be written or renamed.
    """
    draft = draft_of(folder)
    try:
        give_back(folder, own)
        _remove(draft)
        draft.mkdir(parents=True)
        yield draft
        put_in_place(folder, own)
    finally:
        _remove(draft)


def draft_of(folder: Path) -> Path:
    """Returns the hidden sibling in which a folder is built."""
    return folder.with_name(f'.{folder.name}.unfinished')


def put_in_place(folder: Path, own: Collection[str]) -> None:
    """Gives a finished draft its name; what had that name before is removed.

    All of it is synced first, so that not even a power cut leaves half a folder under the name. A
    process that is killed between the two renames leaves the earlier folder aside, from where
    :func:`give_back` fetches it.

    Args:
        folder: The name; the draft is :func:`draft_of` it.
        own: Names directly below the folder that are replaced or removed. Others that the earlier
            folder has belong to somebody else, and move on to the new one.

    Raises:
        OSError: It cannot be renamed; an earlier folder is then where it was.
    """
    draft, aside = draft_of(folder), _aside(folder)
    _sync_all(draft)
    _remove(aside)
    there = os.path.lexists(folder)
    if there:
        os.replace(folder, aside)
    try:
        os.replace(draft, folder)
    except OSError:
        if there:
            os.replace(aside, folder)
        raise
    _take_over(aside, folder, own)
    _sync_names(folder.parent)
    _remove(aside)


def give_back(folder: Path, own: Collection[str]) -> None:
    """Clears up after a process that was killed while it put a folder in place.

    Args:
        folder: The name.
        own: See :func:`put_in_place`.
    """
    aside = _aside(folder)
    if os.path.lexists(aside) and not os.path.lexists(folder):
        os.replace(aside, folder)
    _take_over(aside, folder, own)
    _remove(aside)


def _take_over(aside: Path, folder: Path, own: Collection[str]) -> None:
    """Moves what is somebody else's out of an earlier folder into the one in its place."""
    if aside.is_symlink() or not aside.is_dir():
        return
    for path in list(aside.iterdir()):
        target = folder / path.name
        if path.name not in own and not os.path.lexists(target):
            os.replace(path, target)
    _sync_names(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f'.{folder.name}.replaced')


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(path, name))
        _sync_names(Path(path))


def _sync_names(folder: Path) -> None:
    """Waits until the names in a folder are on the disk itself, where the system offers that."""
    if not hasattr(os, 'O_DIRECTORY'):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
