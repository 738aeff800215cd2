"""Collected runs as a table: each of them, and the mean over seeds where there are several."""

from __future__ import annotations

from collections.abc import Sequence

from .collect import AP_OF_CLASS
from .table import Spread

_ALL = 'coco/bbox_mAP_50'


def as_markdown(runs: Sequence[dict]) -> str:
    """Returns a table with a row for each network of each run, AP@0.5 in per cent.

    Runs of one config, split, length and other settings whose seeds differ also get a row of their
    mean and sample deviation.

    Args:
        runs: As :func:`mmdsym.benchmark.collect.describe_run` returns them, at least one.
    """
    measures = [_ALL, *_classes(runs)]
    titles = ['mAP@0.5', *(name.removeprefix(AP_OF_CLASS) for name in measures[1:])]
    columns = ['config', 'network', 'split', 'seed', 'iterations', 'hours', *titles]
    rows = [columns, ['---'] * len(columns)]
    for run in runs:
        for network in run['metrics']:
            rows.append(_row([run], network, str(run['seed']), measures))
    for alike in _of_several_seeds(runs):
        for network in alike[0]['metrics']:
            rows.append(_row(alike, network, f'{len(alike)} seeds', measures))
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _classes(runs: Sequence[dict]) -> list[str]:
    metrics = next(iter(runs[0]['metrics'].values()))
    return [name for name in metrics if name.startswith(AP_OF_CLASS)]


def _row(alike: Sequence[dict], network: str, seed: str, measures: Sequence[str]) -> list[str]:
    first = alike[0]
    hours = Spread.of([run['training_hours'] for run in alike]).mean
    facts = [first['config'].removesuffix('.py'), network, str(first['split']), seed]
    values = [Spread.of([run['metrics'][network][name] for run in alike]) for name in measures]
    return [
        *facts,
        str(first['iterations']),
        f'{hours:.2f}',
        *(value.in_per_cent() for value in values),
    ]


def _of_several_seeds(runs: Sequence[dict]) -> list[list[dict]]:
    groups: dict[tuple, dict[int, dict]] = {}
    for run in runs:
        # Earlier jsons know neither settings nor images of an iteration.
        length = run['iterations'], run.get('images_per_iteration'), run.get('settings')
        alike = run['config'], run['split'], length, tuple(run['metrics'])
        # The same seed twice is no second draw: the last of them counts.
        groups.setdefault(alike, {})[run['seed']] = run
    return [list(group.values()) for group in groups.values() if len(group) > 1]
