"""The scalars that a run logged, whether it was resumed or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLog:
    """Scalars over iterations.

    Attributes:
        series: Name of a scalar to its values by iteration, in ascending order.
        starts: Names of the folders of its starts, such as ``20260101_120000``, in order.
    """

    series: Mapping[str, Mapping[int, float]]
    starts: tuple[str, ...] = ()

    def of(self, name: str) -> Mapping[int, float]:
        """Returns a scalar by iteration; empty where it was never logged."""
        return self.series.get(name, {})

    def last(self, name: str) -> tuple[int, float] | None:
        """Returns the last iteration of a scalar and its value then."""
        values = self.of(name)
        return (step := max(values), values[step]) if values else None

    @property
    def last_step(self) -> int:
        """The last iteration of which anything was logged; 0 for an empty log."""
        return max((max(values) for values in self.series.values() if values), default=0)

    @property
    def training_seconds(self) -> float:
        """Time of training iterations, without validation and what was lost by interruptions."""
        return self.seconds_until(self.last_step)

    def seconds_until(self, end: int) -> float:
        """Returns what training took up to an iteration, without what was lost by interruptions.

        An entry gives the mean time of the iterations since the entry before.
        """
        seconds, previous = 0.0, 0
        for step, mean in self.of('time').items():
            if step in self.of('loss'):
                seconds += (min(step, end) - previous) * mean
                previous = min(step, end)
        return seconds


def read_run_log(work_dir: Path) -> RunLog:
    """Reads ``<timestamp>/vis_data/*.json`` of a work directory.

    A resumed run starts at an iteration that the run before it may have passed already: from its
    first loss on, the later log counts alone.

    Args:
        work_dir: Where a run left its logs; may hold none.
    """
    series: dict[str, dict[int, float]] = {}
    starts = []
    for folder in sorted(work_dir.glob('*/vis_data')):
        new = _read_folder(folder)
        if not new:
            continue
        starts.append(folder.parent.name)
        # Thresholds are calibrated before the iteration that they are logged for.
        first = min(new.get('loss') or min(new.values(), key=min))
        for name in list(series):
            series[name] = {step: v for step, v in series[name].items() if step < first}
        for name, values in new.items():
            series.setdefault(name, {}).update(values)
    ordered = {name: dict(sorted(values.items())) for name, values in series.items() if values}
    return RunLog(ordered, tuple(starts))


def _read_folder(folder: Path) -> dict[str, dict[int, float]]:
    series: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob('*.json')):
        trained = 0
        for entry in _entries(path):
            step = int(entry.pop('step', 0))
            if 'loss' in entry:
                trained = step
            # A run over epochs counts its evaluations in epochs, or all as step 0: they belong to
            # the iteration before them.
            step = max(step, trained)
            for name, value in entry.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    series.setdefault(name, {})[step] = float(value)
    return series


def _entries(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        # A run that was killed may leave half a line.
        with suppress(json.JSONDecodeError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry
