"""The learning rate of a run that goes on with other settings than it began with."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.optim import OptimWrapper, _ParamScheduler

# What of a scheduler's state moves with the iterations; the rest follows from the config.
_MOVES = {'last_step', '_last_value', 'verbose'}
# What of an optimizer's settings says how it computes, and what it holds.
_OF_THE_MACHINE = {'params', 'param_names', 'foreach', 'fused', 'capturable', 'differentiable'}


class ConfiguredSchedule:
    """Schedulers and the optimizer's settings as a config describes them, before any step.

    MMEngine takes both from the checkpoint of a resumed run, so that a lower learning rate or a
    longer schedule in the config would change nothing, without a word.

    Args:
        optim_wrapper: As built from the config, schedulers having set its first values.
        schedulers: As built from the config.
    """

    def __init__(self, optim_wrapper: OptimWrapper, schedulers: Sequence[_ParamScheduler]) -> None:
        self._groups = [_settings(group) for group in optim_wrapper.param_groups]
        self._states = [copy.deepcopy(scheduler.state_dict()) for scheduler in schedulers]

    @classmethod
    def of(cls, optim_wrapper: object, schedulers: object) -> ConfiguredSchedule | None:
        """Returns it where the values of every iteration follow from the config alone.

        Those of several optimizers and of schedulers that count epochs, or look at a metric after
        each, do not; ``None`` then.
        """
        schedulers = [] if schedulers is None else schedulers
        if not isinstance(optim_wrapper, OptimWrapper) or not isinstance(schedulers, list):
            return None
        epochs = any(scheduler.by_epoch for scheduler in schedulers)
        return None if epochs else cls(optim_wrapper, schedulers)

    def apply(
        self, optim_wrapper: OptimWrapper, schedulers: Sequence[_ParamScheduler], iteration: int
    ) -> list[str]:
        """Makes a resumed optimizer follow the config, where the checkpoint followed another one.

        Args:
            optim_wrapper: With what the checkpoint says.
            schedulers: Likewise.
            iteration: Of the checkpoint.

        Returns:
            Names of the settings that the checkpoint had otherwise; nothing is changed without any.
        """
        schedulers = schedulers or []
        scheduled = {scheduler.param_name for scheduler in schedulers}
        changed = {
            name
            for group, configured in zip(optim_wrapper.param_groups, self._groups, strict=True)
            for name, value in configured.items()
            if name not in scheduled and not _same(group.get(name), value)
        }
        for scheduler, state in zip(schedulers, self._states, strict=True):
            found = scheduler.state_dict()
            # One that the checkpoint did not have has not moved.
            wanted = {**state, '_global_step': iteration}
            kind = type(scheduler).__name__
            changed |= {
                f'{name.lstrip("_")} of {kind}'
                for name, value in wanted.items()
                if name not in _MOVES and not _same(found.get(name), value)
            }
        if changed:
            self._replay(optim_wrapper, schedulers, iteration)
        return sorted(changed)

    def _replay(
        self, optim_wrapper: OptimWrapper, schedulers: Sequence[_ParamScheduler], iteration: int
    ) -> None:
        for group, configured in zip(optim_wrapper.param_groups, self._groups, strict=True):
            group.update(configured)
        for scheduler, state in zip(schedulers, self._states, strict=True):
            scheduler.load_state_dict(copy.deepcopy(state))
        with warnings.catch_warnings():
            # The steps of the optimizer that belong to these were done before.
            warnings.filterwarnings('ignore', 'Detected call of `scheduler.step', UserWarning)
            for _ in range(iteration):
                for scheduler in schedulers:
                    scheduler.step()


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in _OF_THE_MACHINE}


def _same(one: Any, other: Any) -> bool:
    # A checkpoint may hold lists where the config made tuples.
    listed = [list(value) if isinstance(value, tuple) else value for value in (one, other)]
    return listed[0] == listed[1]
