"""The config that a training leaves in its work folder, and what may change in it afterwards."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mmengine.config import Config

from mmdsym.atomic_file import write_file
from mmdsym.errors import UserError
from mmdsym.trained_run import find_config

_EVALUATION = (
    'data_root',
    'val_dataloader',
    'val_evaluator',
    'test_dataloader',
    'test_evaluator',
)


def own_config(cfg: Config, work_dir: Path) -> Path:
    """Returns the config that the training left; of one renamed since, under its old name."""
    path = work_dir / Path(cfg.filename or 'config.py').name
    if not path.is_file():
        with suppress(UserError):  # which is told where the config is read
            return find_config(work_dir)
    return path


def renew_evaluation(cfg: Config, work_dir: Path) -> None:
    """Lets the config in a work folder evaluate on what is asked for now.

    What follows a training reads that config; without this, a finished run that is asked for
    another test set would be tested on the old one.

    Args:
        cfg: The completed config as it is now.
        work_dir: Of a finished training.
    """
    path = own_config(cfg, work_dir)
    if not path.is_file():
        return
    own = Config.fromfile(path)
    asked = {name: cfg[name] for name in _EVALUATION if name in cfg}
    if any(own.get(name) != value for name, value in asked.items()):
        for name, value in asked.items():
            own[name] = value
        write_file(path, own.pretty_text.encode())
