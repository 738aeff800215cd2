"""What a run that was killed has left behind, told by the number of its process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def abandoned(folder: Path, prefix: str) -> Iterator[Path]:
    """Yields the entries of a folder that are called ``<prefix>-<process>`` and whose process died.

    Args:
        folder: Where to look; it may be missing.
        prefix: Beginning of their names. Behind the process's number may follow ``-`` and more.
    """
    for path in sorted(folder.glob(f'{prefix}-*')):
        process = path.name.removeprefix(f'{prefix}-').split('-')[0]
        if process.isdigit() and not _is_alive(int(process)):
            yield path


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Removes the folders that :func:`abandoned` finds."""
    for path in abandoned(folder, prefix):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields a folder that is there for the time of the context, and no longer.

    What processes that died left of the same kind is removed first.

    Args:
        parent: Where it lies; made where it is missing.
        prefix: Beginning of its name, with a dot, so that nobody takes it for data.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent, prefix)
    with tempfile.TemporaryDirectory(prefix=f'{prefix}-{os.getpid()}-', dir=parent) as folder:
        yield Path(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
