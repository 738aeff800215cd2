"""What happens to a run from outside, told in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdsym.atomic_file import FULL_DISK
from mmdsym.errors import UserError

_DEAD_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)')


@contextmanager
def told_in_one_sentence(work_dir: str | Path) -> Iterator[None]:
    """Turns faults of the machine within the context into errors that name the cure.

    Args:
        work_dir: The run's folder, which the message names.

    Raises:
        UserError: A disk is full, or a process that loads images was killed.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise UserError(
            f'no space is left on the disk of {error.filename or work_dir}: free some, then go on '
            'from the last checkpoint, which is whole.'
        ) from error
    except RuntimeError as error:
        found = _DEAD_WORKER.search(str(error))
        if found is None:
            raise
        raise UserError(
            f'process {found[1].strip()}, which loaded images, was killed, most likely because '
            'memory ran out: lower num_workers or cache_megabytes of the loading, or close other '
            'programs, then go on from the last checkpoint.'
        ) from error
