"""What a work folder says of each start of the training in it: when, by which code, on what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mmengine.dist import get_world_size

from mmdsym.atomic_file import write_file
from mmdsym.benchmark.hardware import commit, hardware, versions

STARTS_NAME = 'starts.json'


def note_start(work_dir: Path, iteration: int) -> None:
    """Adds the present start to ``starts.json``; one process must call it for all.

    Args:
        work_dir: Of the training; need not be there yet.
        iteration: From which it goes on.
    """
    start = dict(
        time=datetime.now().astimezone().isoformat(timespec='seconds'),
        iteration=iteration,
        commit=commit(),
        hardware=hardware(),
        processes=get_world_size(),
        versions=versions(),
    )
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


def commits_of(starts: Sequence[dict]) -> list[str]:
    """Returns the commits that took part, each once."""
    return list(dict.fromkeys(str(start.get('commit', 'unknown')) for start in starts))
