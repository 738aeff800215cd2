"""Finished runs in a benchmark's folder that an earlier command asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmdsym.errors import UserError

from .grid import PlannedRun
from .run_folder import RESULT_NAME, RunFolder, read_record, read_result

Plan = Callable[[str, float, int], PlannedRun]


def earlier_runs(
    root: Path, asked: Sequence[RunFolder], plan: Plan
) -> tuple[list[RunFolder], str | None]:
    """Finds the finished runs beside those of the present command.

    Without them, a command that asks for a part of the grid would replace the results of all of it.

    Args:
        root: Folder of all runs.
        asked: Runs of the present command.
        plan: Returns what the present command would train for a method, label fraction and seed.

    Returns:
        Those that were trained with what the present command would train them with, and one
        sentence that says which others are left out and why; ``None`` where none is.
    """
    ours = {folder.path for folder in asked}
    found: list[RunFolder] = []
    left_out: dict[str, list[str]] = {}
    for path in sorted(file.parent for file in root.glob(f'*/{RESULT_NAME}')):
        if path in ours:
            continue
        try:
            found.append(_open(path, plan))
        except _LeftOut as reason:
            left_out.setdefault(str(reason), []).append(path.name)
    told = '; '.join(f'{", ".join(names)} ({why})' for why, names in left_out.items())
    return found, f'Left out though finished: {told}.' if told else None


class _LeftOut(Exception):
    """A run does not belong with the others; the message says why."""


def _open(path: Path, plan: Plan) -> RunFolder:
    try:
        record, result = read_record(path), read_result(path)
    except UserError:
        raise _LeftOut('damaged') from None
    try:
        run = plan(result['method'], result['fraction'], result['seed'])
        # Of the method's config too, which may be gone.
        fingerprint = run.fingerprint()
    except UserError:
        raise _LeftOut('not of this preset') from None
    if run.name != path.name:
        raise _LeftOut('of another split')
    if record is None or record['fingerprint'] != fingerprint:
        raise _LeftOut('of other settings or labels than now')
    return RunFolder(run, path.parent)
