"""Makes a part that is missing, and says in which state it is."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mmdsym.errors import UserError

from .exports import is_exported
from .part_training import CONFIG_NAME, INTERRUPTED, faults_of
from .parts import Part
from .progress import iterations_done

# What a launcher of several processes sets; a part is trained by one.
_OF_THE_LAUNCHER = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'GROUP_RANK')


@dataclass(frozen=True)
class PartState:
    """Whether a part is there.

    Attributes:
        there: It is, as a whole.
        faults: Files of it that were changed or are gone; it is then made anew.
        iteration: Where its training goes on.
    """

    there: bool
    faults: tuple[str, ...]
    iteration: int

    @property
    def word(self) -> str:
        """``there``, ``damaged``, ``unfinished`` or ``missing``."""
        if self.faults:
            return 'damaged'
        if self.there:
            return 'there'
        return 'unfinished' if self.iteration else 'missing'


def state_of(part: Part) -> PartState:
    """Looks at the files of a part."""
    there = is_exported(part.config)
    faults = tuple(faults_of(part.folder, part.training_folder)) if there else ()
    return PartState(there and not faults, faults, iterations_done(part.training_folder))


def make_part(part: Part) -> None:
    """Trains a part, or goes on training it, in a process of its own.

    Raises:
        UserError: The training failed; it has said itself why.
        KeyboardInterrupt: The user stopped it.
    """
    from mmdsym.atomic_file import write_file

    write_file(part.training_folder / CONFIG_NAME, part.config.pretty_text.encode())
    status = _run(part.training_folder)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status or not state_of(part).there:
        raise UserError(
            f'the {part.title} could not be trained (status {status}; what it said stands above '
            f'and in {part.training_folder}): mend that and start the same command again, which '
            'goes on where it was.'
        )


def _run(folder: Path) -> int:
    environment = {k: v for k, v in os.environ.items() if k not in _OF_THE_LAUNCHER}
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *environment.get('PYTHONPATH', '').split(os.pathsep)]
    environment['PYTHONPATH'] = os.pathsep.join(path for path in paths if path)
    command = [sys.executable, '-m', f'{__package__}.part_training', str(folder)]
    # The pipe is never written to: its end tells the training that this process has ended.
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        return process.wait()
