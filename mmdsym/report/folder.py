"""A folder that is replaced as a whole, and never with anything in it that somebody else wrote."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path

from mmdsym.atomic_file import write_file
from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.errors import UserError

MANIFEST = 'report.json'
_ASIDE = '.report_replaced'


def check_replaceable(folder: Path, force: bool) -> None:
    """Makes sure that a report may be written to a folder.

    An earlier report is made of the run alone, so a new one may replace it. A report that was
    being replaced when the process was killed is put back first.

    Args:
        folder: Need not exist.
        force: Whether a folder with anything else in it may be renamed.

    Raises:
        UserError: There are files that no report wrote or that were changed since, and no
            ``force``.
    """
    aside = folder.with_name(_ASIDE)
    if aside.is_dir() and not folder.exists():
        os.replace(aside, folder)
    foreign = _foreign_files(folder)
    if foreign and not force:
        raise UserError(
            f"'{folder}' holds {foreign[0]}, which no report wrote or which was changed since "
            f'({len(foreign)} such files): move it elsewhere, or add --force, which keeps the '
            'folder under another name.'
        )


def write_folder(
    folder: Path,
    files: Mapping[str, bytes],
    summary: Mapping[str, object],
    keep: bool = False,
) -> None:
    """Writes all files beside the folder, and then gives them its name.

    Args:
        folder: If it exists, it is replaced; or renamed to ``<name>_kept_<number>``, if there is
            anything in it that no report wrote.
        files: Name to content.
        summary: Goes into :data:`MANIFEST`, with the sha256 of each file.
        keep: Whether to rename it in any case.

    Raises:
        UserError: The disk is full or does not let us write; an earlier folder stays as it was.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = json.dumps(dict(summary, files=digests), indent=1).encode()
    try:
        with scratch_folder(folder.parent, '.unfinished_report') as scratch:
            draft = scratch / 'report'
            draft.mkdir()
            for name, content in (*files.items(), (MANIFEST, manifest)):
                write_file(draft / name, content)
            _put_in_place(draft, folder, keep or bool(_foreign_files(folder)))
    except OSError as error:
        raise UserError(
            f"'{folder.parent}' cannot be written to ({error.strerror}): make it writable."
        ) from error


def read_warnings(folder: Path) -> list[str]:
    """Returns what a report warns of; nothing where it is damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return list(json.loads((folder / MANIFEST).read_bytes())['warnings'])
    return []


def _put_in_place(draft: Path, folder: Path, keep: bool) -> None:
    aside = _unused_name(folder) if keep else folder.with_name(_ASIDE)
    if not keep:
        shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        os.replace(folder, aside)
    try:
        os.replace(draft, folder)
    except OSError:
        with suppress(OSError):
            os.replace(aside, folder)
        raise
    if not keep:
        shutil.rmtree(aside, ignore_errors=True)


def _unused_name(folder: Path) -> Path:
    names = (folder.with_name(f'{folder.name}_kept_{number}') for number in count(1))
    return next(name for name in names if not name.exists())


def _foreign_files(folder: Path) -> list[str]:
    """Names of files that are not, to the byte, what the manifest says; none without a folder."""
    try:
        own = dict(json.loads((folder / MANIFEST).read_bytes())['files'])
    except (OSError, ValueError, KeyError, TypeError):
        own = {}
    foreign = []
    for path in sorted(folder.rglob('*')):
        name = str(path.relative_to(folder))
        if path.is_dir() or (own and name == MANIFEST):
            continue
        if own.get(name) != hashlib.sha256(path.read_bytes()).hexdigest():
            foreign.append(name)
    return foreign
