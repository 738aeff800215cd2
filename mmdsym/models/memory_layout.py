"""The order in which tensors of a model lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lay_out_channels_last(model: nn.Module) -> None:
    """Lays the weights of a model out as channels_last; its activations follow.

    mmcv's own operators keep the order in which they read memory, whatever a tensor says of itself:
    of channels_last features RoIAlign and the modulated deformable convolution would silently
    compute nonsense.

    Args:
        model: Changed in place; the names and values of its tensors stay.
    """
    model.to(memory_format=torch.channels_last)
    for module in filter(_is_of_mmcv, model.modules()):
        module.to(memory_format=torch.contiguous_format)
        if _take_contiguous not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_take_contiguous, with_kwargs=True)


def _is_of_mmcv(module: nn.Module) -> bool:
    return any(kind.__module__.startswith('mmcv.ops') for kind in type(module).__mro__)


def _take_contiguous(module: nn.Module, inputs: tuple, settings: dict) -> tuple:
    return tuple(map(_contiguous, inputs)), {k: _contiguous(v) for k, v in settings.items()}


def _contiguous(value: object) -> object:
    return value.contiguous() if isinstance(value, Tensor) else value
