"""Whether results can be written where they shall go, asked before the work that makes them."""

from __future__ import annotations

import os
from pathlib import Path

from mmdsym.errors import UserError


def require_place(path: Path, force: bool = False) -> None:
    """Makes sure that a file can be written and replaces nothing that it may not.

    Args:
        path: The file; folders above it may be missing.
        force: Whether an earlier file may be replaced.

    Raises:
        UserError: It exists, it is a folder, or nothing can be written there.
    """
    if path.is_dir():
        raise UserError(f"'{path}' is a folder: name a file with --out.")
    if path.exists() and not force:
        raise UserError(f"'{path}' exists; add --force to replace it, or choose another --out.")
    require_writable(path.parent)


def require_writable(folder: Path) -> None:
    """Makes sure that a folder, which may be missing yet, can take files.

    Raises:
        UserError: A file has its name or that of a folder above it, or we may not write there.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(
            f"'{there}' is a file, so that nothing fits below it: choose another --out."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"nothing may be written into '{there}': change its permissions, or choose another "
            '--out.'
        )
