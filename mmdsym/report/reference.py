"""The supervised run that a teacher-student run has to beat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine import Config

from mmdsym.errors import UserError
from mmdsym.pipeline.starts import read_starts, validation_of
from mmdsym.run_log import read_run_log
from mmdsym.stages import StageSchedule
from mmdsym.trained_run import BASELINE_FOLDER, RESULTS_NAME, dataset_for_testing, find_config

_METRIC = 'coco/bbox_mAP_50'
_INCOMPARABLE = (
    UserError,
    OSError,
    SyntaxError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Reference:
    """What a supervised run reached.

    Attributes:
        name: Name of its work directory.
        map50: mAP@0.5 on the same validation images at its last evaluation, in [0, 1].
        step: Iteration of that evaluation.
        labels: Name of the annotation file that it was trained on.
    """

    name: str
    map50: float
    step: int
    labels: str


def read_reference(work_dir: Path, compared_with: Config) -> Reference:
    """Reads the run in a work directory.

    Args:
        work_dir: Of a plain detector.
        compared_with: Config of the run that is to beat it.

    Raises:
        UserError: It is no run of a plain detector, was validated on other images or never.
    """
    if not work_dir.is_dir():
        raise UserError(f"the reference '{work_dir}' does not exist; name a work directory.")
    return _judge(work_dir, _read_config(work_dir), compared_with)


def find_reference(work_dir: Path, config: Config) -> Reference | None:
    """Looks in and beside a work directory for supervised runs on the same split and images.

    Returns:
        The run's own baseline where that is finished, since it is of equal length; else the best
        run beside it of as many iterations, or the best of all where none is as long, since that
        is the one to beat; ``None`` where there is none.
    """
    with suppress(*_INCOMPARABLE):
        own = read_reference(work_dir / BASELINE_FOLDER, config)
        if own.step >= _length(config):
            return replace(own, name=f'{work_dir.resolve().name}/{own.name}')
    found = []
    for folder in _neighbours(work_dir):
        try:
            own = _read_config(folder)
            if own.get('split') == config.get('split'):
                found.append(_judge(folder, own, config))
        # No supervised run, or one that cannot be compared: its config may be anything.
        except Exception:
            continue
    length = _length(config)
    return max(found, key=lambda one: (one.step == length, one.map50), default=None)


def _read_config(work_dir: Path) -> Config:
    return Config.fromfile(find_config(work_dir), import_custom_modules=False)


def _judge(work_dir: Path, config: Config, compared_with: Config) -> Reference:
    if 'detector' in config.model:
        raise UserError(
            f"'{work_dir}' is no supervised reference, since it trained teacher and student; name "
            'the work directory of a plain detector.'
        )
    if _validation_file(config) != _validation_file(compared_with):
        raise UserError(
            f"'{work_dir}' was validated on {_validation_file(config)}, this run on "
            f'{_validation_file(compared_with)}; name a reference with the same images.'
        )
    if _validated_on_others(work_dir, compared_with):
        raise UserError(
            f"'{work_dir}' was validated before {_validation_file(config)} changed; test it again "
            'on what is there now, or name another reference.'
        )
    known = filter(None, (read_run_log(work_dir).last(_METRIC), _tested(work_dir)))
    last = max(known, key=lambda one: one[0], default=None)
    if last is None:
        raise UserError(f"'{work_dir}' logged no {_METRIC}; let it finish, or name another one.")
    return Reference(work_dir.resolve().name, last[1], last[0], _training_file(config).name)


def _validated_on_others(work_dir: Path, compared_with: Config) -> bool:
    """Whether the file of the same name had other images or boxes when the run was trained."""
    noted = [start['validation'] for start in read_starts(work_dir) if 'validation' in start]
    return bool(noted) and noted[-1] != validation_of(compared_with)


def _tested(work_dir: Path) -> tuple[int, float] | None:
    """Iteration and mAP@0.5 of a finished run's test; interrupted, it may lack its last log."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        results = json.loads((work_dir / RESULTS_NAME).read_bytes())
        return int(results['iteration']), float(results['metrics']['detector'][_METRIC])
    return None


def _length(config: Config) -> int:
    stages = (config.get('train_cfg') or {}).get('stages')
    return StageSchedule(stages).max_iters if stages else 0


def _neighbours(work_dir: Path) -> Iterator[Path]:
    own = work_dir.resolve()
    for folder in sorted(own.parent.iterdir()):
        # To read a config is to run it: only what a training wrote is read.
        written = (folder / 'last_checkpoint').is_file() and any(folder.glob('*/vis_data/*.json'))
        if folder != own and written:
            yield folder


def _validation_file(config: Config) -> Path:
    dataset = dataset_for_testing(config)
    return Path(dataset.get('data_root') or '') / dataset.get('ann_file', '')


def _training_file(config: Config) -> Path:
    dataset = config.train_dataloader.dataset
    while 'ann_file' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'ann_file' not in dataset:
        dataset = (dataset.get('sources') or {}).get('labelled') or {}
    return Path(dataset.get('ann_file', 'unknown labels'))
