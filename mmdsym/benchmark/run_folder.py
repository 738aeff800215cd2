"""One run of a benchmark on disk: how far it is, how it was made, what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mmdsym.atomic_file import write_json
from mmdsym.errors import UserError

from .grid import PlannedRun

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
        self._record_path = self.path / 'record.json'
        self._result_path = self.path / 'result.json'
        self._record = self._read(self._record_path, {'fingerprint': str, 'attempts': list}) or {
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
        if self._result_path.is_file():
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
        needed = {'method': str, 'mAP50': (float, type(None)), 'AP50': dict}
        return self._read(self._result_path, needed)

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
        write_json(self._result_path, dict(result))

    def _write_record(self) -> None:
        write_json(self._record_path, self._record)

    def _read(self, path: Path, needed: Mapping[str, type | tuple[type, ...]]) -> dict | None:
        """Reads what was written here before; None where nothing was."""
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_bytes())
            if all(isinstance(content[name], kind) for name, kind in needed.items()):
                return content
        except (ValueError, KeyError, TypeError):
            pass
        raise UserError(
            f'{path} is damaged, or of another program: move the folder {self.path} away, and the '
            'same command does this run anew.'
        )
