"""MMEngine's runner, with configs completed and checkpoints checked first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.registry import RUNNERS

from .processes import start_processes


@RUNNERS.register_module()
class DSYMRunner(Runner):
    """Completes the config before it builds anything (see :func:`mmdsym.config.complete_config`).

    Since a config names it as ``runner_type``, MMDetection's own tools use it as well.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> DSYMRunner:
        """Builds a runner from a completed copy of the config.

        Raises:
            UserError: The config names files, stages or classes that do not exist.
        """
        return super().from_cfg(complete_config(cfg))

    @property
    def _shares_cpu(self) -> bool:
        """Whether several processes train together without a GPU."""
        return self.distributed and not torch.cuda.is_available()

    def setup_env(self, env_cfg: dict) -> None:
        """Sets up processes and seeds; without a GPU, torchrun's processes speak gloo.

        MMEngine's own set-up asks each process for its GPU.
        """
        if self._shares_cpu and self.launcher == 'pytorch':
            start_processes(self.launcher)
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wraps the model for distributed training, with or without a GPU."""
        if self._shares_cpu and not is_model_wrapper(model):
            unused = self.cfg.get('find_unused_parameters', False)
            settings = dict(broadcast_buffers=False, find_unused_parameters=unused)
            model_wrapper_cfg = {**settings, **(model_wrapper_cfg or {}), 'device_ids': None}
        return super().wrap_model(model_wrapper_cfg, model)

    # Whether the runner was asked to evaluate, where every tensor has to fit.
    _evaluates = False

    def test(self) -> dict[str, float]:
        """Evaluates on the test data."""
        self._evaluates = True
        return super().test()

    def val(self) -> dict[str, float]:
        """Evaluates on the validation data."""
        self._evaluates = True
        return super().val()

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """Loads a checkpoint, unless it belongs to another detector.

        Raises:
            UserError: The file is missing or unreadable, or its tensors do not fit the model: all
                must in order to resume or to test, half of them to start from it.
        """
        if '://' not in str(filename):
            self._refuse_foreign(Path(filename))
        return super().load_checkpoint(filename, *args, **kwargs)

    def _refuse_foreign(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f'there is no checkpoint {path}: correct its path.')
        try:
            checkpoint = _load_checkpoint(str(path), map_location='cpu')
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise UserError(
                f'{path} cannot be read as a checkpoint ({reason}): it may be incomplete or no '
                'checkpoint of MMEngine, so use another one.'
            ) from None
        model = self.model.module if is_model_wrapper(self.model) else self.model
        needed = 1.0 if self._resume or self._evaluates else 0.5
        wrong, share = misfits(model.state_dict(), checkpoint.get('state_dict', checkpoint))
        if share < needed:
            raise UserError(
                f'{path} belongs to another detector ({len(wrong)} tensors of the model are '
                f'missing in it or of another shape, such as {", ".join(wrong[:3])}): use the '
                'config that it was trained with.'
            )


def misfits(model: Mapping, checkpoint: Mapping) -> tuple[list[str], float]:
    """Compares a model's tensors with those of a checkpoint.

    A plain detector's checkpoint fits a teacher-student model if it fits each of both.

    Returns:
        Names of the model's tensors that are absent or of another shape, and the share of those
        that fit, in [0, 1].
    """
    networks = ('teacher.', 'student.')
    plain = not any(name.startswith(networks) for name in checkpoint)
    wrong = []
    for name, tensor in model.items():
        source = name
        if plain and name.startswith(networks):
            source = name.split('.', 1)[1]
        elif plain and name in ('keep_thresholds', 'drop_thresholds'):
            continue
        found = checkpoint.get(source)
        if found is None or found.shape != tensor.shape:
            wrong.append(name)
    return wrong, 1 - len(wrong) / max(1, len(model))
