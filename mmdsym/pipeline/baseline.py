"""The supervised run of equal length that a teacher-student run has to beat."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from mmengine.config import Config

from mmdsym.errors import UserError
from mmdsym.stages import Stage, StageSchedule
from mmdsym.trained_run import BASELINE_FOLDER, RESULTS_NAME

from .after_training import parse_after_training

_METRIC = 'coco/bbox_mAP_50'
# Hooks that need teacher and student.
_OF_THE_PAIR = {
    'CLIPPseudoLabelFilterHook',
    'PseudoLabelMonitorHook',
    'StageHook',
    'TeacherGuardHook',
    'TeacherUpdateHook',
    'ThresholdCalibrationHook',
}


def baseline_config(cfg: Config) -> Config:
    """Returns the config that trains the student's detector on all labelled images alone.

    It has as many iterations as all stages together, the same learning rates, and in each batch as
    many images as the largest labelled, calibration and synthetic share of a stage.

    Args:
        cfg: The completed config of the run, with its work folder.

    Raises:
        UserError: The config trains a plain detector, or has no file of all labelled images.
    """
    stages = (cfg.get('train_cfg') or {}).get('stages')
    if 'detector' not in cfg.model or not stages:
        raise UserError(
            f'{cfg.filename} does not train teacher and student in stages, so that there is '
            'nothing to compare with a supervised run: leave out --with-baseline.'
        )
    schedule = StageSchedule(stages)
    baseline = Config(copy.deepcopy(cfg._cfg_dict.to_dict()), filename=cfg.filename)
    baseline.pop('parts', None)
    baseline.model = baseline.model.detector
    images = max(map(_supervised_images, schedule.stages))
    baseline.train_cfg = dict(
        type='mmdsym.StagedTrainLoop',
        val_interval=cfg.train_cfg.get('val_interval', 1000),
        stages=dict(supervised=dict(begin=0, end=schedule.max_iters, images=dict(labelled=images))),
    )
    baseline.train_dataloader.dataset.sources = dict(labelled=_all_labelled(cfg))
    baseline.val_cfg = dict(type='ValLoop')
    baseline.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if str(hook.get('type', '')).split('.')[-1] not in _OF_THE_PAIR
    ]
    baseline.after_training = dict(test='detector')
    _scale_alike(baseline, images / max(stage.batch_size for stage in schedule.stages))
    _name(baseline, cfg)
    return baseline


def add_compared_test(cfg: Config) -> None:
    """Lets a config test the network that is compared with the baseline, in place."""
    wanted = parse_after_training(cfg)
    if compared_network(cfg) not in wanted.test:
        settings = dict(cfg.get('after_training') or {})
        cfg.after_training = dict(settings, test=[*wanted.test, compared_network(cfg)])


def compared_network(cfg: Config) -> str:
    """Returns the network of a run that is compared with the baseline: the one to deploy."""
    return parse_after_training(cfg).export or 'teacher'


def difference(work_dir: Path, network: str) -> str:
    """Says in one line how far a tested run lies above or below its baseline.

    Args:
        work_dir: Of the run, with ``results.json`` there and in the folder of its baseline.
        network: The one that is compared.
    """
    own = _map50(work_dir / RESULTS_NAME, network)
    other = _map50(work_dir / BASELINE_FOLDER / RESULTS_NAME, 'detector')
    if own is None or other is None:
        return f'{network} minus supervised baseline: unknown, since one has no mAP@0.5'
    return (
        f'{network} minus supervised baseline: {100 * (own - other):+.1f} points of mAP@0.5 '
        f'({100 * own:.1f} % against {100 * other:.1f} %)'
    )


def _map50(results: Path, network: str) -> float | None:
    try:
        value = float(json.loads(results.read_bytes())['metrics'][network][_METRIC])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # The metric is -1 where there is no true box.
    return value if isfinite(value) and value >= 0 else None


def _supervised_images(stage: Stage) -> int:
    return sum(stage.images.get(source, 0) for source in ('labelled', 'calibration', 'synthetic'))


def _all_labelled(cfg: Config) -> dict:
    """The labelled source, on all labelled images and for a plain detector."""
    source = copy.deepcopy(cfg.train_dataloader.dataset.sources.labelled.to_dict())
    path = Path(source['ann_file'])
    together = path.with_name('labelled.json')
    if not (Path(source.get('data_root') or '') / together).is_file():
        raise UserError(
            f'{together}, which holds all labelled images, does not exist: prepare the data again '
            'with tools/prepare_dataset.py, or leave out --with-baseline.'
        )
    return dict(source, ann_file=str(together), pipeline=_for_one_network(source['pipeline']))


def _for_one_network(pipeline: list[dict]) -> list[dict]:
    """Replaces the branches of a batch by what its supervised branch does."""
    plain = []
    for transform in pipeline:
        if str(transform.get('type', '')).split('.')[-1] == 'MultiBranch':
            branch = transform['sup']
            plain += [branch] if isinstance(branch, Mapping) else list(branch)
        else:
            plain.append(transform)
    return plain


def _scale_alike(baseline: Config, share: float) -> None:
    """Lets --auto-scale-lr scale as it does for the run, whose batches have further images."""
    scaling = baseline.get('auto_scale_lr') or {}
    if scaling.get('base_batch_size'):
        scaling['base_batch_size'] *= share


def _name(baseline: Config, cfg: Config) -> None:
    baseline.work_dir = str(Path(cfg.work_dir) / BASELINE_FOLDER)
    # MMEngine knows runs and visualizers by name: those of the run would be taken again.
    name = cfg.get('experiment_name') or Path(cfg.filename or 'run').stem
    baseline.experiment_name = f'{name}_baseline'
    if isinstance(baseline.get('visualizer'), dict):
        baseline.visualizer.pop('name', None)
