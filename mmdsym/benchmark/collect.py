"""What a trained run reached, measured anew from its last checkpoint."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from statistics import fmean

from mmengine.config import Config

from mmdsym.benchmark.grid import digest_of_settings
from mmdsym.benchmark.shown_boxes import judge_shown_boxes
from mmdsym.command_line import build_runner
from mmdsym.errors import UserError
from mmdsym.images_per_step import images_per_device
from mmdsym.pipeline.part_training import hours_of
from mmdsym.pipeline.parts import declared_parts
from mmdsym.pipeline.starts import commits_of, read_starts
from mmdsym.run_log import read_run_log
from mmdsym.test_time_views import see_all_orientations
from mmdsym.trained_run import TrainedRun, load_run

AP_OF_CLASS = 'coco/AP50/'
"""Prefix of a class's AP@0.5 among the metrics."""

IN_ALL_ORIENTATIONS = ', all orientations'
"""Suffix of a network's name where it was tested in all of them."""

_OF_A_RUN = ('randomness', 'resume', 'load_from', 'launcher')
"""What runs of one setting may differ in."""


def describe_run(work_dir: Path, trained_by: str | None = None, turned: bool = False) -> dict:
    """Returns everything about one run, with the test metrics of each of its networks.

    Args:
        work_dir: Of the run.
        trained_by: Commit that trained it; by default what the run wrote down at its starts,
            several being joined by ``+``, or ``'unknown'``.
        turned: Whether each network is also tested in all orientations.

    Raises:
        UserError: The folder holds no run.
    """
    run = load_run(work_dir)
    networks = ('teacher', 'student') if run.is_pair else (None,)
    metrics = {network or 'detector': evaluate(run, network) for network in networks}
    if turned:
        metrics |= {
            f'{network or "detector"}{IN_ALL_ORIENTATIONS}': evaluate(run, network, turned)
            for network in networks
        }
    return {
        'config': run.config_path.name,
        'split': run.config.get('split'),
        'seed': run.config.randomness.seed,
        'images_per_iteration': images_per_device(run.config),
        'settings': digest_of_settings(run.config, leave_out=_OF_A_RUN).hex()[:12],
        'checkpoint': run.checkpoint_path.name,
        'commit': trained_by or '+'.join(commits_of(read_starts(work_dir))) or 'unknown',
        **training_log(work_dir),
        'part_hours': part_hours(run.config),
        'metrics': metrics,
        'shown_boxes': judge_shown_boxes(run),
    }


def part_hours(cfg: Config) -> dict[str, float]:
    """Returns what the parts of a run took to make, by their titles, whichever run made them.

    Args:
        cfg: The completed config of the run; parts of which nothing is known are left out.
    """
    if not cfg.get('parts'):
        return {}
    try:
        known = {part.title: hours_of(part.training_folder) for part in declared_parts(cfg)}
    except UserError:  # The data or the configs of the parts have gone since.
        return {}
    return {title: round(hours, 3) for title, hours in known.items() if hours is not None}


def evaluate(run: TrainedRun, network: str | None, turned: bool = False) -> dict[str, float]:
    """Returns the test metrics of a run's last checkpoint.

    Args:
        run: The run.
        network: ``'teacher'``, ``'student'``, or ``None`` for a plain detector.
        turned: Whether it looks at each image in all orientations.
    """
    # Not a shallow copy: what is set below is no setting of the run.
    cfg = copy.deepcopy(run.config)
    # Whatever launcher trained the run, one process looks at it.
    cfg.load_from, cfg.resume, cfg.launcher = str(run.checkpoint_path), False, 'none'
    cfg.test_evaluator = dict(type='mmdsym.DefectMetric', ann_file=_annotations(run), metric='bbox')
    if network:
        cfg.model.semi_test_cfg = dict(predict_on=network)
    if turned:
        see_all_orientations(cfg)
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
    """Returns what a run logged: iterations, hours, and the CLIP filter's mean share of time."""
    log = read_run_log(work_dir)
    facts = {
        'iterations': max(log.of('loss'), default=0),
        'training_hours': round(log.training_seconds / 3600, 3),
    }
    shares = log.of('clip_filter/share_of_time')
    if shares:
        facts['clip_filter_share_of_time'] = round(fmean(shares.values()), 4)
    return facts
