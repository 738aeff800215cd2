"""How far a training in a work folder has come, and how fast it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import inf
from pathlib import Path
from statistics import median

from mmdsym.errors import UserError
from mmdsym.trained_run import find_checkpoint


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the checkpoint from which a training goes on; ``None`` where there is none."""
    try:
        return find_checkpoint(folder)
    except UserError:
        return None


def iterations_done(folder: Path) -> int:
    """Returns the iteration of the latest checkpoint, 0 where there is none."""
    checkpoint = latest_checkpoint(folder)
    match = re.fullmatch(r'iter_(\d+)', checkpoint.stem) if checkpoint else None
    return int(match[1]) if match else 0


def seconds_per_iteration(folder: Path, begin: int = 0, end: float = inf) -> float | None:
    """Returns the median of what iterations ``begin`` to ``end`` took, as they were logged.

    Returns:
        Seconds; ``None`` where no such iteration was logged.
    """
    logged = [seconds for step, seconds in _logged(folder) if begin < step <= end]
    return median(logged) if logged else None


def _logged(folder: Path) -> Iterator[tuple[int, float]]:
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
                if 'loss' in entry:
                    yield int(entry['step']), float(entry['time'])
            # A killed process may have left half a line.
            except (ValueError, KeyError, TypeError):
                continue
