"""Evaluates finished runs and writes one json with all that a table of results needs.

Where seeds of one config are among them, the printed table has their mean and deviation as well.

Example:
    python tools/collect_results.py work_dirs/dsym_neu_40pct --out docs/results/neu_40pct.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

import mmdsym
from mmdsym.atomic_file import write_json
from mmdsym.benchmark.collect import describe_run
from mmdsym.benchmark.collected_table import as_markdown
from mmdsym.benchmark.hardware import commit, hardware
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.output_place import require_place


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', type=Path, help='folders of finished runs')
    parser.add_argument('--out', type=Path, required=True, help='json to write')
    parser.add_argument(
        '--commit',
        help='commit that trained them; default: what each run wrote down when it started',
    )
    parser.add_argument(
        '--also',
        nargs='+',
        type=Path,
        default=[],
        metavar='JSON',
        help='also take over the runs of such jsons, whose folders may be gone: further seeds',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='also test each network in all eight orientations, as tools/test.py --tta does',
    )
    parser.add_argument('--force', action='store_true', help='replace an existing json')
    return parser.parse_args()


def earlier_runs(paths: Sequence[Path]) -> list[dict]:
    """Returns the runs of jsons that this tool has written before.

    Raises:
        UserError: A file is missing or of another kind.
    """
    runs = []
    for path in paths:
        try:
            found = json.loads(path.read_bytes())['runs']
            as_markdown(found)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f'{path} is no json of collected results ({type(error).__name__}): name one that '
                'this tool has written.'
            ) from error
        runs += found
    return runs


@exit_on_user_error
def main() -> None:
    """Writes the json, and prints it as a table."""
    args = parse_args()
    require_place(args.out, args.force)
    earlier = earlier_runs(args.also)
    collected = [
        describe_run(work_dir, args.commit, turned=args.tta) for work_dir in args.work_dirs
    ]
    results = {
        'versions': {'mmdsym': mmdsym.__version__, 'torch': torch.__version__},
        'evaluated_on': hardware(),
        'evaluated_by': commit(),
        'runs': [*earlier, *collected],
    }
    for run in collected:
        if run['commit'].endswith('-dirty') or run['commit'] == 'unknown':
            print(
                f'{run["config"]}: no commit stands for what trained it ({run["commit"]}); name it '
                'with --commit if you know it.'
            )
    write_json(args.out, results)
    print(as_markdown(results['runs']))


if __name__ == '__main__':
    main()
