"""A loss that is no number must not end up in the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from mmdsym.engine.batch_record import write_batch
from mmdsym.errors import UserError
from mmdsym.registry import HOOKS

COUNTER = 'train/skipped_steps'


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Leaves out optimiser steps that are not finite, counts them, and stops when none is left.

    Gradients are looked at right before the optimiser uses them: where one is NaN or infinite, all
    are dropped, so that weights and moments stay as they were; the statistics of BatchNorm, which
    the forward pass has changed by then, are put back. The log says so, and counts them as
    ``skipped_steps``.

    After ``patience`` of them in a row the run ends, and its last batch lies in the work folder:
    ``batch.json`` names files, boxes and losses, beside the images as the network saw them.

    Args:
        patience: Iterations in a row that may be skipped; the next one ends the run.

    Raises:
        UserError: ``patience`` is negative, or too many iterations were skipped.
    """

    # Before the teacher or an average follows the student, after what announces the iteration.
    priority = 'ABOVE_NORMAL'

    def __init__(self, patience: int = 4) -> None:
        if patience < 0:
            raise UserError(f'FiniteStepHook.patience is {patience}: give 0 or more.')
        self.patience = patience
        self.in_a_row = 0
        self._dropped = False
        self._statistics: list[Tensor] = []
        self._before: list[Tensor] = []

    def before_train(self, runner: Runner) -> None:
        """Has itself asked before each step of the optimiser."""
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        for one in wrappers:
            one.optimizer.register_step_pre_hook(self._drop_unless_finite)
        self._statistics = running_statistics(runner.model)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Remembers the statistics of BatchNorm."""
        self._before = [statistic.clone() for statistic in self._statistics]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Undoes what is left of a bad iteration, and counts it."""
        losses = outputs or {}
        loss = float(torch.as_tensor(losses.get('loss', 0.0)).detach())
        # Mixed precision skips the steps of a loss that is NaN by itself, without a word.
        finite = not self._dropped and math.isfinite(loss)
        self._dropped = False
        if finite:
            self.in_a_row = 0
            return
        if self._before:
            torch._foreach_copy_(self._statistics, self._before)
        self.in_a_row += 1
        counted = count_one_more(runner)
        runner.logger.warning(
            f'Iteration {runner.iter + 1}: the loss ({loss:g}) or '
            f'its gradient is not finite, so that the step was skipped ({self.in_a_row} in a row, '
            f'{counted} in this run).'
        )
        if self.in_a_row > self.patience:
            self._stop(runner, data_batch, losses)

    def _drop_unless_finite(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if getattr(optimizer, 'found_inf', None) is not None:
            # A loss scaler has looked, and has a fused optimiser leave the step out by itself: too
            # large a scale, which is lowered then, is no fault of the data.
            return
        parameters = (p for group in optimizer.param_groups for p in group['params'])
        if not all_finite(p.grad for p in parameters if p.grad is not None):
            self._dropped = True
            # An optimiser leaves alone what has no gradient.
            optimizer.zero_grad(set_to_none=True)

    def _stop(self, runner: Runner, data_batch: object, losses: Mapping) -> None:
        rank = f'_rank{get_rank()}' if get_world_size() > 1 else ''
        folder = Path(runner.work_dir) / f'not_finite_iter_{runner.iter + 1}{rank}'
        write_batch(folder, data_batch, iteration=runner.iter + 1, losses=losses)
        raise UserError(
            f'the loss or its gradient was not finite in {self.in_a_row} iterations in a row, up '
            f'to iteration {runner.iter + 1}: look at the images and boxes of that batch in '
            f'{folder} (batch.json names their files), mend the data or lower the learning rate, '
            'then start the same command again with --resume, which goes on from the last '
            'checkpoint.'
        )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number of any tensor is NaN or infinite."""
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled:
        return True
    # The largest number of each: a sum of squares could overflow by itself.
    return bool(torch.stack(torch._foreach_norm(filled, math.inf)).isfinite().all())


def running_statistics(model: torch.nn.Module) -> list[Tensor]:
    """Returns means and variances that layers keep of what they have seen."""
    return [
        statistic
        for module in model.modules()
        if isinstance(module, _NormBase)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]


def count_one_more(runner: Runner) -> int:
    """Counts a skipped step, in the log and in checkpoints; returns how many there are."""
    known = runner.message_hub.log_scalars.get(COUNTER)
    counted = int(known.current()) + 1 if known else 1
    runner.message_hub.update_scalar(COUNTER, counted)
    return counted
