"""Results of many runs as a table: mean and spread over seeds."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

SEEDS_THAT_PROVE = 3
"""Runs of a method and label fraction below which a difference of a point or two says nothing."""


class Spread(NamedTuple):
    """Mean and sample standard deviation; NaN without values, and ``None`` for a single one."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Returns those of the known values.

        Args:
            values: NaN, or ``None`` in a json, is the AP of a class without boxes.
        """
        known = [value for value in values if value is not None and not math.isnan(value)]
        deviation = statistics.stdev(known) if len(known) > 1 else None
        return cls(statistics.fmean(known) if known else math.nan, deviation)

    def in_per_cent(self) -> str:
        """Returns such as ``67.4 ± 0.6``, for a share in [0, 1]; a dash for NaN."""
        if math.isnan(self.mean):
            return '–'
        if self.deviation is None:
            return f'{100 * self.mean:.1f}'
        return f'{100 * self.mean:.1f} ± {100 * self.deviation:.1f}'


class Row(NamedTuple):
    """All runs of a method with one label fraction.

    Attributes:
        method: Its name.
        fraction: Share of the training images that are labelled.
        seeds: Of its runs.
        iterations: Of a run.
        labelled_images: That a run trains on, repetitions counted.
        hours: Of training, in the mean.
        network: ``'teacher'`` of a pair, or ``'detector'``.
        overall: mAP@0.5 in [0, 1].
        of_class: AP@0.5 of each class.
    """

    method: str
    fraction: float
    seeds: tuple[int, ...]
    iterations: int
    labelled_images: int
    hours: float
    network: str
    overall: Spread
    of_class: dict[str, Spread]


def summarise(results: Sequence[dict]) -> list[Row]:
    """Groups the results of runs by label fraction and method, in the order they come.

    Args:
        results: As :func:`mmdsym.benchmark.execution.describe_result` returns them.
    """
    groups: dict[tuple[float, str], list[dict]] = {}
    for result in results:
        groups.setdefault((result['fraction'], result['method']), []).append(result)
    return [
        Row(
            method=method,
            fraction=fraction,
            seeds=tuple(sorted(run['seed'] for run in runs)),
            iterations=runs[0]['iterations'],
            labelled_images=runs[0]['labelled_images'],
            hours=statistics.fmean(run['training_hours'] for run in runs),
            network=runs[0]['network'],
            overall=Spread.of([run['mAP50'] for run in runs]),
            of_class={
                name: Spread.of([run['AP50'][name] for run in runs]) for name in runs[0]['AP50']
            },
        )
        for (fraction, method), runs in groups.items()
    ]


def notes_on(results: Sequence[dict]) -> list[str]:
    """Returns what a reader of the table must know: what it proves, and what hours leave out."""
    notes = []
    rows = summarise(results)
    few = [row for row in rows if len(row.seeds) < SEEDS_THAT_PROVE]
    if few:
        which = 'every row' if 1 < len(few) == len(rows) else _named(few)
        notes.append(
            f'Fewer than {SEEDS_THAT_PROVE} seeds of {which}: seeds differ by about one '
            'point, so that differences of one or two points are unproven.'
        )
    parts: dict[str, float] = {}
    for result in results:
        for title, hours in (result.get('part_hours') or {}).items():
            parts[title] = max(hours, parts.get(title, 0.0))
    if parts:
        told = ', '.join(f'{title} {hours:.2f}' for title, hours in parts.items())
        notes.append(
            f'Hours are of the detector alone; its parts, made once for a set of labels, took: '
            f'{told}.'
        )
    return notes


def _named(rows: Sequence[Row]) -> str:
    return ', '.join(f'{row.method} ({100 * row.fraction:g} %)' for row in rows)


def as_markdown(rows: Sequence[Row]) -> str:
    """Returns the rows as a Markdown table, AP@0.5 in per cent."""
    classes = list(rows[0].of_class) if rows else []
    head = ['method', 'labels', 'seeds', 'iterations', 'labelled images', 'hours', 'network']
    lines = [[*head, 'mAP@0.5', *classes]]
    lines.append(['---', *['---:'] * (len(lines[0]) - 1)])
    for row in rows:
        facts = [row.method, f'{100 * row.fraction:g} %', str(len(row.seeds)), str(row.iterations)]
        facts += [str(row.labelled_images), f'{row.hours:.2f}', row.network]
        scores = [row.overall, *(row.of_class[name] for name in classes)]
        lines.append([*facts, *(score.in_per_cent() for score in scores)])
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def as_csv(rows: Sequence[Row]) -> str:
    """Returns the rows as CSV; means and deviations stand in columns of their own, in [0, 1]."""
    classes = list(rows[0].of_class) if rows else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    head = ['method', 'fraction', 'seeds', 'iterations', 'labelled_images', 'hours', 'network']
    scores = [f'{name}_{part}' for name in ('mAP50', *classes) for part in ('mean', 'deviation')]
    writer.writerow([*head, *scores])
    for row in rows:
        facts = [row.method, row.fraction, ' '.join(map(str, row.seeds)), row.iterations]
        facts += [row.labelled_images, round(row.hours, 3), row.network]
        for spread in (row.overall, *(row.of_class[name] for name in classes)):
            facts.append(round(spread.mean, 4))
            facts.append('' if spread.deviation is None else round(spread.deviation, 4))
        writer.writerow(facts)
    return stream.getvalue()
