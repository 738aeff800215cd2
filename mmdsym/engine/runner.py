"""MMEngine's runner, with configs completed and checkpoints checked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, master_only
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

from mmdsym.atomic_file import drafted, remove_drafts
from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.half_precision import require_precision
from mmdsym.registry import RUNNERS
from mmdsym.trained_run import find_checkpoint

from .freed_memory import keep_freed_memory
from .processes import start_processes
from .resumed_schedule import ConfiguredSchedule
from .run_faults import told_in_one_sentence


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
        """Sets up processes and seeds; without a GPU, memory, and gloo for torchrun's processes.

        MMEngine's own set-up asks each process for its GPU.
        """
        if not torch.cuda.is_available():
            keep_freed_memory()
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

    def build_optim_wrapper(
        self, optim_wrapper: dict | OptimWrapper
    ) -> OptimWrapper | OptimWrapperDict:
        """Builds the optimizer and what wraps it.

        Raises:
            UserError: Mixed precision is asked for without a GPU, where MMEngine has none.
        """
        if isinstance(optim_wrapper, dict):
            require_precision(optim_wrapper)
        return super().build_optim_wrapper(optim_wrapper)

    # Whether the runner was asked to evaluate, where every tensor has to fit.
    _evaluates = False
    # Settings of the config that stand for this start alone, and what to keep in their place.
    _kept: Mapping[str, object] = MappingProxyType({})

    def keep_in_config(self, **settings: object) -> None:
        """Says what the config in the work folder shall say in place of what this start uses."""
        self._kept = settings

    def dump_config(self) -> None:
        """Writes nothing, unlike MMEngine's: a test leaves alone what the training has written."""

    def _write_config(self) -> None:
        kept = self.cfg.copy()
        for name, value in self._kept.items():
            kept[name] = value
        name = Path(self.cfg.filename or f'{self.timestamp}.py').name
        kept.dump(Path(self.work_dir) / name)

    def train(self) -> nn.Module:
        """Trains, and leaves the completed config in the work folder.

        Raises:
            UserError: Something in config, data or checkpoint is wrong, a disk is full, or a
                process that loads images was killed.
        """
        if get_rank() == 0:
            remove_drafts(Path(self.work_dir))
            self._write_config()
        with told_in_one_sentence(self.work_dir):
            return super().train()

    def test(self) -> dict[str, float]:
        """Evaluates on the test data."""
        self._evaluates = True
        with told_in_one_sentence(self.work_dir):
            return super().test()

    def val(self) -> dict[str, float]:
        """Evaluates on the validation data."""
        self._evaluates = True
        with told_in_one_sentence(self.work_dir):
            return super().val()

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Writes a checkpoint as a whole or not at all; MMEngine would write it in place.

        Raises:
            UserError: The disk is full or does not let us write; earlier checkpoints are kept.
        """
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with drafted(Path(out_dir) / filename) as draft:
            super().save_checkpoint(str(draft.parent), draft.name, *args, **kwargs)

    def load_or_resume(self) -> None:
        """As MMEngine's, but goes on also where a killed process left the pointer empty."""
        if self._resume and self._load_from is None and not self._has_loaded:
            with suppress(UserError):
                self._load_from = str(find_checkpoint(Path(self.work_dir)))
        super().load_or_resume()

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """Loads a checkpoint, unless it belongs to another detector.

        Raises:
            UserError: The file is missing or unreadable, or its tensors do not fit the model: all
                must in order to resume or to test, half of them to start from it.
        """
        if '://' not in str(filename):
            self._refuse_foreign(Path(filename))
        return super().load_checkpoint(filename, *args, **kwargs)

    def resume(self, filename: str, *args, map_location: str | Callable = 'cpu', **kwargs) -> None:
        """Goes on from a checkpoint, with the learning rate and the schedule of the config.

        MMEngine's would go on with those of the checkpoint, whatever the config says. Tensors that
        belong on a GPU get there from the CPU: read straight to a GPU, as MMEngine does, the
        optimizer's counters would stay there, and each step would wait for each of them.

        Raises:
            UserError: It is no checkpoint of this run, or lacks what is needed beside weights.
        """
        configured = ConfiguredSchedule.of(self.optim_wrapper, self.param_schedulers)
        try:
            super().resume(filename, *args, map_location=map_location, **kwargs)
        except UserError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f'{filename} has the right weights, but no state from which a run could go on '
                f'({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}): '
                'start from it with load_from in the config, without --resume.'
            ) from error
        if configured is not None:
            changed = configured.apply(self.optim_wrapper, self.param_schedulers, self.iter)
            if changed:
                self.logger.warning(
                    f'The optimizer or its schedule was another one in {filename} '
                    f'({", ".join(changed)}): the run goes on with that of the config, as if it '
                    'had been so from the first iteration on.'
                )

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
        state = (
            checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
        )
        if not isinstance(state, Mapping) or not state:
            raise UserError(f'{path} holds no weights: name a checkpoint of a training run.')
        model = self.model.module if is_model_wrapper(self.model) else self.model
        needed = 1.0 if self._resume or self._evaluates else 0.5
        wrong, share = misfits(model.state_dict(), state)
        if share < needed:
            raise UserError(
                f'{path} belongs to another detector ({len(wrong)} tensors of the model are '
                f'missing in it or of another shape, such as {", ".join(wrong[:3])}): use the '
                'config that it was trained with.'
            )
        spoilt = [name for name, _ in model.named_parameters() if not is_finite(state.get(name))]
        if spoilt:
            raise UserError(
                f'{path} holds weights that are no finite numbers ({len(spoilt)} tensors, such as '
                f'{spoilt[0]}): go on from an earlier checkpoint.'
            )


def is_finite(value: object) -> bool:
    """Whether a tensor has finite numbers alone; what is no tensor is not asked."""
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())


def misfits(model: Mapping, checkpoint: Mapping) -> tuple[list[str], float]:
    """Compares a model's tensors with those of a checkpoint.

    A plain detector's checkpoint fits a teacher-student model if it fits each of both.

    Returns:
        Names of the model's tensors that are absent or of another shape, and the share of those
        that fit, in [0, 1].
    """
    networks = ('teacher.', 'student.')
    plain = not any(str(name).startswith(networks) for name in checkpoint)
    wrong = []
    for name, tensor in model.items():
        source = name
        if plain and name.startswith(networks):
            source = name.split('.', 1)[1]
        elif plain and name in ('keep_thresholds', 'drop_thresholds'):
            continue
        found = checkpoint.get(source)
        if getattr(found, 'shape', None) != tensor.shape:
            wrong.append(name)
    return wrong, 1 - len(wrong) / max(1, len(model))
