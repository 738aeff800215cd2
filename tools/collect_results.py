"""Evaluates finished runs and writes one json with all that a table of results needs.

Example:
    python tools/collect_results.py work_dirs/dsym_neu_40pct --out docs/results/neu_40pct.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import mmdsym
from mmdsym.atomic_file import write_json
from mmdsym.benchmark.collect import AP_OF_CLASS, describe_run
from mmdsym.benchmark.hardware import commit, hardware
from mmdsym.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', type=Path, help='folders of finished runs')
    parser.add_argument('--out', type=Path, required=True, help='json to write')
    parser.add_argument(
        '--commit',
        help='commit that trained them; default: what each run wrote down when it started',
    )
    parser.add_argument('--force', action='store_true', help='replace an existing json')
    return parser.parse_args()


def as_markdown(results: dict) -> str:
    """Returns a table with a row for each network of each run, AP@0.5 in per cent."""
    classes = [
        name.removeprefix(AP_OF_CLASS)
        for name in next(iter(results['runs'][0]['metrics'].values()))
        if name.startswith(AP_OF_CLASS)
    ]
    columns = ['config', 'network', 'split', 'seed', 'iterations', 'hours', 'mAP@0.5', *classes]
    rows = [columns, ['---'] * len(columns)]
    for run in results['runs']:
        for network, metrics in run['metrics'].items():
            values = [
                metrics['coco/bbox_mAP_50'],
                *(metrics[f'{AP_OF_CLASS}{name}'] for name in classes),
            ]
            facts = [run['config'].removesuffix('.py'), network, run['split'], run['seed']]
            facts += [run['iterations'], f'{run["training_hours"]:.2f}']
            rows.append([*map(str, facts), *(f'{100 * value:.1f}' for value in values)])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


@exit_on_user_error
def main() -> None:
    """Writes the json, and prints it as a table."""
    args = parse_args()
    if args.out.exists() and not args.force:
        raise UserError(f'{args.out} exists: choose another --out, or --force to replace it.')
    results = {
        'versions': {'mmdsym': mmdsym.__version__, 'torch': torch.__version__},
        'evaluated_on': hardware(),
        'evaluated_by': commit(),
        'runs': [describe_run(work_dir, args.commit) for work_dir in args.work_dirs],
    }
    for run in results['runs']:
        if run['commit'].endswith('-dirty') or run['commit'] == 'unknown':
            print(
                f'{run["config"]}: no commit stands for what trained it ({run["commit"]}); name it '
                'with --commit if you know it.'
            )
    write_json(args.out, results)
    print(as_markdown(results))


if __name__ == '__main__':
    main()
