"""Few parameter groups, so that the optimizer's step takes few kernels."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmdsym.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, with one group for all parameters of the same settings.

    MMEngine gives each parameter a group of its own as soon as ``paramwise_cfg`` is set. An
    optimizer works group by group: hundreds of groups are thousands of small kernels a step, which
    on a GPU take longer than the gradients. What is learnt stays the same. The log gets a line for
    each group, in place of several for each parameter.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Builds the optimizer of a model, and its wrapper."""
        with _without_lines_of_parameters():
            wrapper = super().__call__(model)
        groups = merge_groups(wrapper.optimizer.param_groups)
        wrapper.optimizer.param_groups[:] = groups
        print_log(describe_groups(groups, model), logger='current')
        return wrapper


@contextmanager
def _without_lines_of_parameters() -> Iterator[None]:
    """Silences the thousands of lines in which MMEngine tells what it does with each parameter."""

    def is_of_interest(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        frozen = message.endswith('is skipped since its requires_grad=False')
        return not (frozen or message.startswith('paramwise_options -- '))

    logger = MMLogger.get_current_instance()
    logger.addFilter(is_of_interest)
    try:
        yield
    finally:
        logger.removeFilter(is_of_interest)


def describe_groups(groups: Sequence[Mapping], model: nn.Module) -> str:
    """Returns a sentence: how many tensors learn at which rate, and how many are frozen.

    Args:
        groups: Of the optimizer, see :func:`merge_groups`.
        model: Whose tensors they are.
    """
    parts = [
        f'{len(group["params"])} tensors at a learning rate of {group["lr"]:g} '
        f'(weight decay {group.get("weight_decay", 0):g})'
        for group in groups
    ]
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    return f'Learns {", ".join(parts)}; {frozen} tensors are frozen.'


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
