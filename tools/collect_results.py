"""Evaluates finished runs and writes one json with all that a table of results needs.

Example:
    python tools/collect_results.py work_dirs/dsym_neu_40pct --out docs/results/neu_40pct.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import torch

import mmdsym
from mmdsym.command_line import build_runner
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.trained_run import TrainedRun, load_run


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', type=Path, help='folders of finished runs')
    parser.add_argument('--out', type=Path, required=True, help='json to write')
    parser.add_argument('--commit', help='commit that trained them; by default the present one')
    parser.add_argument('--force', action='store_true', help='replace an existing json')
    return parser.parse_args()


def evaluate(run: TrainedRun, network: str | None) -> dict[str, float]:
    """Returns the test metrics of a run's last checkpoint.

    Args:
        run: The run.
        network: ``'teacher'``, ``'student'``, or ``None`` for a plain detector.
    """
    cfg = run.config.copy()
    cfg.load_from, cfg.resume = str(run.checkpoint_path), False
    cfg.test_evaluator = dict(type='mmdsym.DefectMetric', ann_file=_annotations(run), metric='bbox')
    if network:
        cfg.model.semi_test_cfg = dict(predict_on=network)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.experiment_name = f'{run.config_path.stem}_{network}_{Path(folder).name}'
        # A visualizer of its own: one that writes into the folder of the run before would fail.
        cfg.visualizer = dict(type='Visualizer', name=cfg.experiment_name)
        metrics = build_runner(cfg).test()
    return {name: round(float(value), 4) for name, value in metrics.items()}


def _annotations(run: TrainedRun) -> str:
    dataset = run.config.test_dataloader.dataset
    return str(Path(dataset.get('data_root') or '') / dataset.ann_file)


def training_log(work_dir: Path) -> dict[str, float]:
    """Returns iterations and hours of a run, from the scalars that it logged, resumed or not."""
    steps: dict[int, float] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if 'loss' in entry and 'time' in entry:
                steps[entry['step']] = entry['time']
    seconds, previous = 0.0, 0
    for step in sorted(steps):
        seconds += (step - previous) * steps[step]
        previous = step
    return {'iterations': previous, 'training_hours': round(seconds / 3600, 3)}


def hardware() -> str:
    """Returns the machine in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{os.cpu_count()} CPU cores ({platform.machine()})'


def commit() -> str:
    """Returns the repository's present commit, marked where files differ from it."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=10']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or 'unknown'


def describe(work_dir: Path, trained_by: str) -> dict:
    """Returns everything about one run."""
    run = load_run(work_dir)
    networks = ('teacher', 'student') if run.is_pair else (None,)
    return {
        'config': run.config_path.name,
        'split': run.config.get('split'),
        'seed': run.config.randomness.seed,
        'checkpoint': run.checkpoint_path.name,
        'commit': trained_by,
        **training_log(work_dir),
        'metrics': {network or 'detector': evaluate(run, network) for network in networks},
    }


def as_markdown(results: dict) -> str:
    """Returns a table with a row for each network of each run, AP@0.5 in per cent."""
    classes = [
        name.removeprefix('coco/AP50/')
        for name in next(iter(results['runs'][0]['metrics'].values()))
        if name.startswith('coco/AP50/')
    ]
    columns = ['config', 'network', 'split', 'seed', 'iterations', 'hours', 'mAP@0.5', *classes]
    rows = [columns, ['---'] * len(columns)]
    for run in results['runs']:
        for network, metrics in run['metrics'].items():
            values = [
                metrics['coco/bbox_mAP_50'],
                *(metrics[f'coco/AP50/{name}'] for name in classes),
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
    trained_by = args.commit or commit()
    results = {
        'versions': {'mmdsym': mmdsym.__version__, 'torch': torch.__version__},
        'evaluated_on': hardware(),
        'runs': [describe(work_dir, trained_by) for work_dir in args.work_dirs],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix('.partial')
    temporary.write_text(json.dumps(results, indent=1) + '\n')
    os.replace(temporary, args.out)
    print(as_markdown(results))


if __name__ == '__main__':
    main()
