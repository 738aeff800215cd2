"""Few parameter groups, so that the optimizer's step takes few kernels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmdsym.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, with one group for all parameters of the same settings.

    MMEngine gives each parameter a group of its own as soon as ``paramwise_cfg`` is set. An
    optimizer works group by group: hundreds of groups are thousands of small kernels a step, which
    on a GPU take longer than the gradients. What is learnt stays the same.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Builds the optimizer of a model, and its wrapper."""
        wrapper = super().__call__(model)
        wrapper.optimizer.param_groups[:] = merge_groups(wrapper.optimizer.param_groups)
        return wrapper


def merge_groups(groups: list[dict]) -> list[dict]:
    """Returns one group for all parameters of the same settings, in the order of the first each.

    Args:
        groups: As an optimizer of torch has them: ``params`` and settings.
    """
    merged: dict[Hashable, dict] = {}
    for group in groups:
        first = merged.setdefault(_settings(group), {**group, 'params': []})
        first['params'].extend(group['params'])
    return list(merged.values())


def _settings(group: Mapping) -> Hashable:
    return tuple(sorted((name, repr(value)) for name, value in group.items() if name != 'params'))
