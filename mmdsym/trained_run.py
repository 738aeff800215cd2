"""A trained run on disk: its config and its checkpoint."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from torch import Tensor, nn

from mmdsym.checkpoints import allow_mmengine_checkpoints
from mmdsym.config_faults import in_one_line
from mmdsym.errors import UserError

CLIP_FILTER_STATE = 'clip_filter'
"""Under which name the CLIP filter keeps its state in a checkpoint."""

OWN_THRESHOLDS = 'teacher_thresholds'
"""Under which name a checkpoint, exported ones too, has thresholds for the teacher's own scores."""

BASELINE_FOLDER = 'baseline'
"""Where a work directory has the supervised run of equal length, if it was asked for."""

RESULTS_NAME = 'results.json'
"""Which file of a work directory says what its last checkpoint reached, if it was tested."""


@dataclass(frozen=True)
class TrainedRun:
    """A config and a checkpoint that was trained with it.

    Attributes:
        config: The whole training config.
        config_path, checkpoint_path: Where both lie.
        checkpoint: What the checkpoint file holds.
    """

    config: Config
    config_path: Path
    checkpoint_path: Path
    checkpoint: dict[str, Any]

    @property
    def is_pair(self) -> bool:
        """Whether the config declares teacher and student (and not one plain detector)."""
        return 'detector' in self.config.model

    @property
    def has_filtered_scores(self) -> bool:
        """Whether its thresholds belong to scores of the CLIP filter, not to the detector's own."""
        return CLIP_FILTER_STATE in self.checkpoint

    @property
    def own_thresholds(self) -> list[float] | None:
        """Calibrated score of each class from which the teacher's boxes have the best F1.

        They belong to the scores that the teacher gives by itself, which are those of the deployed
        detector; above 1 where the teacher found nothing right. Without any, and without a
        filter, those of pseudo-labels; ``None`` where nothing was calibrated.
        """
        known = self.checkpoint.get(OWN_THRESHOLDS)
        if known is None and self.is_pair and not self.has_filtered_scores:
            calibrated = self.checkpoint['state_dict'].get('keep_thresholds')
            known = None if calibrated is None else calibrated.tolist()
        return known

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, from the checkpoint or else from the config's test data set.

        Raises:
            UserError: Nobody names them.
        """
        meta = self.checkpoint.get('meta') or {}
        known = {key.lower(): value for key, value in (meta.get('dataset_meta') or {}).items()}
        dataset = dataset_for_testing(self.config)
        classes = known.get('classes') or (dataset.get('metainfo') or {}).get('classes')
        if not classes:
            # Imported late: reading class names from data is the exception.
            from mmdsym.datasets import read_classes

            classes = read_classes(Path(dataset.get('data_root') or '') / dataset['ann_file'])
        return (classes,) if isinstance(classes, str) else tuple(classes)


def load_run(target: str | Path, config: str | Path | None = None) -> TrainedRun:
    """Finds and reads a trained run.

    Args:
        target: A work directory (its last checkpoint is taken) or a checkpoint file.
        config: The training config; by default the one that lies beside the checkpoint.

    Raises:
        UserError: Something is missing, ambiguous or unreadable.
    """
    checkpoint_path = find_checkpoint(Path(target))
    config_path = Path(config) if config else find_config(checkpoint_path.parent)
    if not config_path.is_file():
        raise UserError(f"the config '{config_path}' does not exist; correct --config.")
    checkpoint = read_checkpoint(checkpoint_path)
    return TrainedRun(_read_config(config_path), config_path, checkpoint_path, checkpoint)


def find_checkpoint(target: Path) -> Path:
    """Returns ``target`` itself if it is a file, else the last checkpoint of that work directory.

    Raises:
        UserError: There is none.
    """
    if target.is_file():
        return target
    if not target.is_dir():
        raise UserError(f"'{target}' does not exist; name a work directory or a .pth checkpoint.")
    pointer = target / 'last_checkpoint'
    if pointer.is_file():
        named = Path(pointer.read_text(encoding='utf-8').strip())
        # A work directory that was moved or copied still names its old place.
        for path in (target / named.name, named):
            if path.is_file():
                return path
    numbered = [
        (int(match[1]), path)
        for path in target.glob('*.pth')
        if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem))
    ]
    if not numbered:
        raise UserError(f"'{target}' holds no checkpoint; train first, or name a .pth file.")
    return max(numbered)[1]


def find_config(folder: Path) -> Path:
    """Returns the config that a training run left in its work directory.

    Raises:
        UserError: There is none, or several.
    """
    configs = sorted(folder.glob('*.py'))
    if len(configs) == 1:
        return configs[0]
    found = ', '.join(path.name for path in configs) or 'none'
    raise UserError(
        f"the config of the run in '{folder}' is not certain (.py files there: {found}); "
        'name it with --config.'
    )


def _read_config(path: Path) -> Config:
    try:
        config = Config.fromfile(path)
    # A config is a program: whatever is wrong with it, its line helps more than our traceback.
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"'{path}' cannot be read as a config ({in_one_line(error)}); correct it, or name "
            'another with --config.'
        ) from error
    if not isinstance(config.get('model'), dict):
        raise UserError(f"'{path}' declares no model; name a training config with --config.")
    return config


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of MMEngine into the memory of the CPU.

    Raises:
        UserError: It cannot be read, or holds no weights.
    """
    # Once more: the fork of MMEngine takes its classes off torch's list after it has read a file.
    allow_mmengine_checkpoints()
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}); name a .pth file "
            'that a training run wrote.'
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get('state_dict'), dict):
        raise UserError(f"'{path}' holds no state_dict; name a checkpoint of a training run.")
    return checkpoint


def dataloader_for_testing(config: Config) -> dict:
    """Returns a config's test dataloader, or else its validation dataloader.

    Raises:
        UserError: It has neither.
    """
    dataloader = config.get('test_dataloader') or config.get('val_dataloader')
    if not dataloader:
        raise UserError(
            f"'{config.filename}' has neither test_dataloader nor val_dataloader, so that nobody "
            'knows how images are to be loaded; add one.'
        )
    return dataloader


def dataset_for_testing(source: Config | dict) -> dict:
    """Returns the innermost data set of a config's (or of the given) test dataloader."""
    dataset = (dataloader_for_testing(source) if isinstance(source, Config) else source)['dataset']
    while 'pipeline' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    return dataset


def load_strictly(model: nn.Module, state: dict[str, Tensor], run: TrainedRun) -> None:
    """Loads a state_dict of which every tensor must fit.

    Args:
        model: As the run's config builds it, or its plain detector.
        state: The tensors of the run's checkpoint under the names of ``model``.
        run: Named in the error.

    Raises:
        UserError: A tensor is missing, left over or of another shape.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    left_over = [name for name in state if name not in wanted]
    other = [n for n in wanted if n in state and wanted[n].shape != state[n].shape]
    for names, fault in (
        (missing, 'lacks'),
        (left_over, 'has too'),
        (other, 'has another size of'),
    ):
        if names:
            raise UserError(
                f"'{run.checkpoint_path}' is not a checkpoint of the detector in "
                f"'{run.config_path}': it {fault} {names[0]} ({len(names)} tensors in all); name "
                'the config that it was trained with by --config.'
            )
    model.load_state_dict(state)
