"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path

from mmdsym.errors import UserError

_MARK = '.unfinished'
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it.

    Raises:
        UserError: The disk is full or does not let us write; nothing is left behind, and a file
            of that name stays as it was.
    """
    with drafted(path) as draft:
        draft.write_bytes(content)


def write_json(path: Path, content: object) -> None:
    """Writes json that people can read, as a whole or not at all.

    Raises:
        UserError: As :func:`write_file`.
    """
    write_file(path, as_json(content).encode())


def as_json(content: object, ascii_only: bool = True) -> str:
    """Returns json that people can read and every parser takes.

    Numbers that are not finite, such as the AP of a class without boxes, become ``null``: json
    knows neither NaN nor infinity, and strict parsers refuse the whole file for one of them.

    Args:
        content: What to write.
        ascii_only: Whether other letters are escaped.
    """
    known = _with_finite_numbers(content)
    return json.dumps(known, indent=1, ensure_ascii=ascii_only, allow_nan=False) + '\n'


def _with_finite_numbers(content: object) -> object:
    if isinstance(content, dict):
        return {name: _with_finite_numbers(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_with_finite_numbers(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path``; what lies there at the end becomes ``path``.

    The draft is synced before it is renamed, so that not even a power cut leaves half a file under
    the name.

    Raises:
        UserError: The disk is full or does not let us write; nothing is left behind, and a file
            of that name stays as it was.
    """
    draft = path.with_name(f'.{path.name}{_MARK}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        sync(draft)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if error.errno in FULL_DISK:
            raise UserError(
                f'no space is left for {path}: free some or name a folder on another disk, then '
                'start again; what was finished before is kept.'
            ) from error
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}): make its folder writable or '
            'name another one.'
        ) from error
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Waits until a file's content is on the disk itself."""
    with open(path, 'rb+') as stream:
        os.fsync(stream.fileno())


def remove_drafts(folder: Path) -> None:
    """Removes what a killed process left half-written in a folder, if there is anything."""
    for draft in folder.glob(f'.*{_MARK}'):
        draft.unlink(missing_ok=True)
