"""What a trained run reached, measured anew from its last checkpoint."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from mmdsym.command_line import build_runner
from mmdsym.trained_run import TrainedRun, load_run

AP_OF_CLASS = 'coco/AP50/'
"""Prefix of a class's AP@0.5 among the metrics."""


def describe_run(work_dir: Path, trained_by: str) -> dict:
    """Returns everything about one run, with the test metrics of each of its networks.

    Args:
        work_dir: Of the run.
        trained_by: Commit that trained it.

    Raises:
        UserError: The folder holds no run.
    """
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
    # MMDetection has no word for a detector that finds nothing at all.
    names = ['coco/bbox_mAP_50', *(f'{AP_OF_CLASS}{name}' for name in run.classes)]
    return dict.fromkeys(names, 0.0) | {
        name: round(float(value), 4) for name, value in metrics.items()
    }


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
