"""How far a training in a work folder has come, and how fast it was."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from statistics import median

from mmdsym.errors import UserError
from mmdsym.run_log import read_run_log
from mmdsym.trained_run import find_checkpoint, read_checkpoint


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


def iteration_of(checkpoint: Path) -> int:
    """Returns the iteration that any checkpoint was written after; 0 where it does not say.

    Raises:
        UserError: It cannot be read as a checkpoint.
    """
    match = re.search(r'iter_(\d+)$', checkpoint.stem)
    if match:
        return int(match[1])
    return int((read_checkpoint(checkpoint).get('meta') or {}).get('iter') or 0)


def seconds_per_iteration(folder: Path, begin: int = 0, end: float = inf) -> float | None:
    """Returns the median of what iterations ``begin`` to ``end`` took, as they were logged.

    Returns:
        Seconds; ``None`` where no such iteration was logged.
    """
    log = read_run_log(folder)
    trained = log.of('loss')
    logged = [s for step, s in log.of('time').items() if begin < step <= end and step in trained]
    return median(logged) if logged else None
