"""One run of a benchmark on disk: how far it is, how it was made, what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mmdsym.atomic_file import write_json
from mmdsym.errors import UserError

from .grid import PlannedRun

RESULT_NAME = 'result.json'
"""Which file of a run's folder says what came out."""

_RECORD_NAME = 'record.json'
STATES = ('missing', 'interrupted', 'trained', 'finished')


class RunFolder:
    """Holds a run's work folder, its log, a record of all attempts, and the result.

    Args:
        run: The run.
        root: Folder of all runs.

    Raises:
        UserError: The folder belongs to a run with other settings or labels.
    """

    def __init__(self, run: PlannedRun, root: Path) -> None:
        self.run = run
        self.path = root / run.name
        self.work_dir = self.path / 'work'
        self.log = self.path / 'log.txt'
        self._record = read_record(self.path) or {
            'fingerprint': run.fingerprint(),
            'attempts': [],
        }
        if self._record['fingerprint'] != run.fingerprint():
            raise UserError(
                f'{self.path} holds a run with other settings or labels than {run.config.name} '
                'has now: name another --out, or move it away.'
            )

    @property
    def state(self) -> str:
        """One of ``STATES``."""
        if (self.path / RESULT_NAME).is_file():
            return 'finished'
        attempts = self._record['attempts']
        if attempts and attempts[-1].get('exit_status') == 0:
            return 'trained'
        # The runner writes this file with its first checkpoint.
        has_checkpoint = (self.work_dir / 'last_checkpoint').is_file()
        return 'interrupted' if has_checkpoint else 'missing'

    @property
    def attempts(self) -> list[dict]:
        """Each start of the training: command, commit, hardware, versions, seconds, exit status."""
        return self._record['attempts']

    @property
    def result(self) -> dict | None:
        """What :meth:`finish` wrote."""
        return read_result(self.path)

    @property
    def seconds(self) -> float:
        """Time of all attempts whose end was seen."""
        return sum(attempt.get('seconds', 0.0) for attempt in self.attempts)

    def begin_attempt(self, facts: Mapping[str, object]) -> None:
        """Writes down that the training starts."""
        self._record['attempts'].append(dict(facts))
        self._write_record()

    def end_attempt(self, seconds: float, exit_status: int) -> None:
        """Writes down how the training ended."""
        self._record['attempts'][-1].update(seconds=round(seconds, 1), exit_status=exit_status)
        self._write_record()

    def finish(self, result: Mapping[str, object]) -> None:
        """Writes the result; from then on the run is finished."""
        write_json(self.path / RESULT_NAME, dict(result))

    def _write_record(self) -> None:
        write_json(self.path / _RECORD_NAME, self._record)


def read_record(folder: Path) -> dict | None:
    """Returns how the run in a folder was made; ``None`` where it never began.

    Raises:
        UserError: What lies there is no such record.
    """
    return _read(folder / _RECORD_NAME, {'fingerprint': str, 'attempts': list})


def read_result(folder: Path) -> dict | None:
    """Returns what came out of the run in a folder; ``None`` where it is not finished.

    Raises:
        UserError: What lies there is no such result.
    """
    needed = {'method': str, 'fraction': (float, int), 'seed': int}
    return _read(folder / RESULT_NAME, {**needed, 'mAP50': (float, type(None)), 'AP50': dict})


def _read(path: Path, needed: Mapping[str, type | tuple[type, ...]]) -> dict | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        if all(isinstance(content[name], kind) for name, kind in needed.items()):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f'{path} is damaged, or of another program: move the folder {path.parent} away, and the '
        'same command does this run anew.'
    )
