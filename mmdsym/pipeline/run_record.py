"""What a work folder says of the run in it: its settings, and what was done after training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmdsym.atomic_file import write_file
from mmdsym.errors import UserError

RECORD_NAME = 'run.json'


@dataclass
class RunRecord:
    """Kept as ``run.json`` in the work folder.

    Attributes:
        settings: What determines the run, see :func:`mmdsym.pipeline.description.describe`.
        steps: Step after training to what it was done on and where its result is.
    """

    settings: dict[str, object]
    steps: dict[str, dict] = field(default_factory=dict)

    def write(self, work_dir: Path) -> None:
        """Writes the record, whole or not at all."""
        content = dict(settings=self.settings, steps=self.steps)
        write_file(work_dir / RECORD_NAME, json.dumps(content, indent=1).encode())

    def is_done(self, step: str, on: Mapping[str, str]) -> bool:
        """Says whether a step was done on this very checkpoint and data, and its files are left."""
        known = self.steps.get(step) or {}
        return known.get('on') == on and all(Path(path).exists() for path in known['files'])


def read_record(work_dir: Path) -> RunRecord | None:
    """Returns the record of a work folder; ``None`` where there is none.

    Raises:
        UserError: It is damaged.
    """
    path = work_dir / RECORD_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        return RunRecord(dict(content['settings']), dict(content['steps']))
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f'{path} is damaged: remove it and go on with --resume, or name another --work-dir.'
        ) from None
