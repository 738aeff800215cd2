"""Writing a prepared data set as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mmdsym.atomic_file import FULL_DISK
from mmdsym.datasets.preparation.leavings import abandoned, remove_abandoned
from mmdsym.errors import UserError

OWN_ENTRIES = frozenset({'annotations', 'dataset_card.json', 'dataset_card.md', 'images'})


@dataclass(frozen=True)
class FileCopy:
    """A file to be copied as it is.

    Args:
        source: Where it lies.
        sha256: Its content's hash.
    """

    source: Path
    sha256: str


Plan = Mapping[str, bytes | FileCopy]
"""Every file of a data set by its path below the data set's folder, with forward slashes."""


def write_data_set(plan: Plan, target: Path, force: bool = False) -> bool:
    """Makes the folder hold exactly the planned files.

    Everything is built in a hidden folder beside it and moved into place at the end.

    Args:
        plan: What the folder shall hold.
        target: The folder.
        force: Whether an existing data set that differs may be replaced.

    Returns:
        False when the folder already held all this and was left alone.

    Raises:
        UserError: When the folder exists with other content and may not be replaced, or the disk
            is full or does not let us write.
    """
    _give_back_replaced(target)
    remove_abandoned(target.parent, f'.{target.name}.partial')
    if target.exists() and not target.is_dir():
        raise UserError(f'{target} is a file; choose another --name')
    if target.exists():
        changes = differences(plan, target)
        if not changes:
            return False
        _refuse_to_lose(target, changes, force)
    partial = _hidden_sibling(target, 'partial')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _build(plan, partial)
        _move_into_place(partial, target)
    except OSError as error:
        full = error.errno in FULL_DISK
        raise UserError(
            f'{target} cannot be written ({error.strerror or error}); '
            f'{"free some space" if full else "make its folder writable"} or name another --out'
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def differences(plan: Plan, target: Path) -> dict[str, list[str]]:
    """What writing the plan would do to an existing folder.

    Returns:
        The paths that would be `removed`, `added` and `changed`; empty when none would.
    """
    present = {
        path.relative_to(target).as_posix()
        for path in target.rglob('*')
        if path.is_file() and path.relative_to(target).parts[0] in OWN_ENTRIES
    }
    shared = sorted(present & set(plan))
    changes = {
        'removed': sorted(present - set(plan)),
        'added': sorted(set(plan) - present),
        'changed': [n for n in shared if _hash_file(target / n) != _hash_planned(plan[n])],
    }
    return {kind: names for kind, names in changes.items() if names}


def _refuse_to_lose(target: Path, changes: Mapping[str, list[str]], force: bool) -> None:
    foreign = sorted(path.name for path in target.iterdir() if path.name not in OWN_ENTRIES)
    if foreign:
        raise UserError(
            f'{target} holds files that were not written by this tool ({_shorten(foreign)}); '
            'move them away or choose another --name'
        )
    summary = '; '.join(f'{len(n)} files {kind} ({_shorten(n)})' for kind, n in changes.items())
    if not force:
        raise UserError(
            f'{target} already holds another data set, which this would replace: {summary}; '
            'choose another --name, or replace it with --force'
        )
    print(f'replacing {target}: {summary}')


def _build(plan: Plan, folder: Path) -> None:
    for name, content in tqdm(sorted(plan.items()), desc='writing', unit='file', disable=None):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
            continue
        shutil.copyfile(content.source, path)
        if _hash_file(path) != content.sha256:
            raise UserError(f'{content.source} changed while it was read; run the command again')


def _move_into_place(partial: Path, target: Path) -> None:
    if not target.exists():
        os.replace(partial, target)
        return
    replaced = _hidden_sibling(target, 'replaced')
    os.replace(target, replaced)
    try:
        os.replace(partial, target)
    except OSError:
        os.replace(replaced, target)
        raise
    shutil.rmtree(replaced)


def _hidden_sibling(target: Path, purpose: str) -> Path:
    return target.parent / f'.{target.name}.{purpose}-{os.getpid()}'


def _give_back_replaced(target: Path) -> None:
    """Puts back what a run that was killed between two moves had set aside."""
    for path in abandoned(target.parent, f'.{target.name}.replaced'):
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.replace(path, target)


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash_planned(content: bytes | FileCopy) -> str:
    return content.sha256 if isinstance(content, FileCopy) else hashlib.sha256(content).hexdigest()


def _shorten(entries: list[str], limit: int = 3) -> str:
    rest = len(entries) - limit
    return ', '.join(entries[:limit]) + (f' and {rest} more' if rest > 0 else '')
