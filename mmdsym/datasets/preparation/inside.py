"""File names out of annotations, which must not lead out of their folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from mmdsym.errors import UserError


def inner_path(folder: Path, name: str, named_in: Path) -> Path:
    """Returns the file of a name below a folder.

    A name is also what a file is called in another folder later, so that one that would leave its
    folder on any system is refused on all of them.

    Args:
        folder: Where the name starts; it may itself be a link.
        name: As an annotation file has it, with forward slashes.
        named_in: That annotation file, for the message.

    Raises:
        UserError: The name is empty or absolute, has a drive or `..`, or leads through a link to a
            file elsewhere.
    """
    fault = _fault(folder, name)
    if fault:
        raise UserError(
            f'{named_in} names the image {name!r}, which {fault}; correct the name, or put the '
            f'image itself below {folder}'
        )
    return folder / name


def _fault(folder: Path, name: str) -> str:
    """Why a name is refused; empty when it is not."""
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if '\0' in name or not posix.parts:
        return 'is no file name'
    if windows.drive or windows.root or posix.is_absolute():
        return 'is absolute'
    if '..' in windows.parts:
        return 'leaves its folder with ..'
    try:
        there = (folder / name).resolve()
    except (OSError, RuntimeError):
        return 'leads nowhere'
    return '' if there.is_relative_to(folder.resolve()) else 'is a link that leaves its folder'
