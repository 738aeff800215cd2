"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    write_file(path, (json.dumps(content, indent=1) + '\n').encode())


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
