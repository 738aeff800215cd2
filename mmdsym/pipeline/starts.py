"""What a work folder says of each start of the training in it: when, by which code, on what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_world_size

from mmdsym.atomic_file import write_file
from mmdsym.benchmark.hardware import commit, hardware, versions
from mmdsym.errors import UserError

from .contents import digest_of_test_set
from .progress import latest_checkpoint

STARTS_NAME = 'starts.json'


def note_start(
    work_dir: Path, iteration: int, checkpoint: str | None = None, validation: str | None = None
) -> None:
    """Adds the present start to ``starts.json``; one process must call it for all.

    Args:
        work_dir: Of the training; need not be there yet.
        iteration: From which it goes on.
        checkpoint: The checkpoint that the user named to go on from.
        validation: What the images are that it is validated on, see :func:`validation_of`.
    """
    start = dict(
        time=datetime.now().astimezone().isoformat(timespec='seconds'),
        iteration=iteration,
        commit=commit(),
        hardware=hardware(),
        processes=get_world_size(),
        versions=versions(),
    )
    if checkpoint is not None:
        start['checkpoint'] = _identity(Path(checkpoint))
    if validation is not None:
        start['validation'] = validation
    work_dir.mkdir(parents=True, exist_ok=True)
    content = json.dumps([*read_starts(work_dir), start], indent=1)
    write_file(work_dir / STARTS_NAME, content.encode())


def read_starts(work_dir: Path) -> list[dict]:
    """Returns the starts in their order; none where the file is missing or damaged.

    It only informs: nothing that is trained follows from it.
    """
    try:
        content = json.loads((work_dir / STARTS_NAME).read_bytes())
    except (OSError, ValueError):
        return []
    is_list = isinstance(content, list)
    return [start for start in content if isinstance(start, dict)] if is_list else []


def validation_of(cfg: Config) -> str | None:
    """Returns a digest of the annotations that a config is tested on; ``None`` without any."""
    try:
        return digest_of_test_set(cfg)
    except (UserError, KeyError, TypeError, AttributeError):
        return None


def has_gone_on_from(work_dir: Path, checkpoint: Path) -> bool:
    """Says whether the latest checkpoint of a work folder follows from one that the user named.

    Args:
        work_dir: Of the training.
        checkpoint: The one that the user names now.
    """
    latest = latest_checkpoint(work_dir)
    named = [start for start in read_starts(work_dir) if start.get('checkpoint')]
    if latest is None or not named or named[-1]['checkpoint'] != _identity(checkpoint):
        return False
    # There may be later iterations of an earlier run.
    return latest.stat().st_mtime >= datetime.fromisoformat(named[-1]['time']).timestamp()


def _identity(checkpoint: Path) -> list:
    # Not its content, which is large: whoever exchanges it writes it at another time.
    status = checkpoint.stat() if checkpoint.is_file() else None
    return [str(checkpoint.resolve()), status and status.st_size, status and status.st_mtime_ns]


def commits_of(starts: Sequence[dict]) -> list[str]:
    """Returns the commits that took part, each once."""
    return list(dict.fromkeys(str(start.get('commit', 'unknown')) for start in starts))
