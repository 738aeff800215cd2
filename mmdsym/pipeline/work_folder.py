"""Whose run a work folder holds, and that nobody else works in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from mmdsym.errors import UserError

from .contents import Contents
from .description import Description, describe, differences
from .parts import declared_parts
from .progress import latest_checkpoint
from .run_record import RunRecord, read_record

_NAMED = 4


def describe_run(cfg: Config) -> Description:
    """Returns what determines a run, its parts standing for themselves by their keys."""
    folders = {str(part.folder): f'{part.name} {part.key}' for part in declared_parts(cfg)}
    # Of images, which may be very many, names and sizes are enough to notice an exchange.
    return describe(cfg, Contents(read_images=False), folders)


def refuse_unknown(work_dir: Path) -> None:
    """Makes sure that a folder with checkpoints says whose they are.

    Raises:
        UserError: It does not.
    """
    begun = (work_dir / 'last_checkpoint').exists() or latest_checkpoint(work_dir) is not None
    if begun and read_record(work_dir) is None:
        raise UserError(
            f'{work_dir} holds the checkpoints of an earlier run of which nothing more is known: '
            'go on with --resume, name another --work-dir, or remove it.'
        )


def open_record(cfg: Config, insists: bool = False) -> tuple[RunRecord, list[str]]:
    """Returns the record of the run in a config's work folder, or a new one; writes nothing.

    Args:
        cfg: A completed config with its work folder.
        insists: Whether the user wants to go on whatever differs.

    Returns:
        The record, and the names of the settings in which an earlier run there was another one.

    Raises:
        UserError: The folder holds the checkpoints of another run.
    """
    work_dir = Path(cfg.work_dir)
    settings = describe_run(cfg)
    record = read_record(work_dir)
    if latest_checkpoint(work_dir) is None:
        return RunRecord(settings), []
    if record is None:
        return RunRecord(settings), []
    changed = differences(settings, record.settings)
    if changed and not insists:
        raise UserError(
            f'{work_dir} holds a run with other settings or data ({in_short(changed)}): name '
            'another --work-dir, take the change back, or go on all the same with --resume.'
        )
    return RunRecord(settings, record.steps), changed


def changed_since(cfg: Config, record: RunRecord) -> list[str]:
    """Returns the names of the settings in which the run, and its data, differ from its record.

    Hours may lie between: the parts are made after the record was opened.
    """
    return differences(describe_run(cfg), record.settings)


def in_short(names: list[str]) -> str:
    """Names the first few of many."""
    rest = len(names) - _NAMED
    return ', '.join(names[:_NAMED]) + (f' and {rest} more' if rest > 0 else '')


@contextmanager
def claimed(work_dir: Path) -> Iterator[None]:
    """Keeps every other process from training in a work folder.

    Raises:
        UserError: Another process works in it, or it cannot be written.
    """
    import fcntl  # Not on Windows, where the rest of the package can still be imported.

    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        stream = open(work_dir / '.lock', 'ab')  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UserError(
            f'{work_dir} cannot be written ({error.strerror}): make it writable or name another '
            '--work-dir.'
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'another process trains in {work_dir}: wait for it, end it, or name another '
                '--work-dir.'
            ) from None
        except OSError as error:
            print_log(f'{work_dir} cannot be locked ({error.strerror}): start no second run in it.')
        try:
            yield
        finally:
            # Workers forked meanwhile have the file open too: closing it here would not do.
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_UN)
