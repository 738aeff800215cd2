"""What a run that was killed has left behind, told by the number of its process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
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


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
