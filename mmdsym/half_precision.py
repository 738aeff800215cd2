"""Where half of the digits are enough, and make a CPU faster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper

from mmdsym.errors import UserError

SWITCH = 'MMDSYM_BFLOAT16'
_UNITS = ('_is_amx_tile_supported', '_is_avx512_bf16_supported')


def multiplies_bfloat16() -> bool:
    """Says whether this processor multiplies bfloat16 in its own right: AMX, AVX512-BF16.

    Without either, bfloat16 is slower than float32. The environment variable ``MMDSYM_BFLOAT16``
    overrules the processor: ``0`` keeps float32, for the same numbers on all machines.
    """
    wanted = os.environ.get(SWITCH)
    if wanted:
        return wanted != '0'
    # torch keeps the questions to itself, and older ones do not know them.
    questions = (getattr(torch.cpu, name, None) for name in _UNITS)
    return torch.backends.mkldnn.is_available() and any(ask() for ask in questions if ask)


def autocast_where_fast(device: torch.device) -> AbstractContextManager:
    """Returns a context that computes in bfloat16 on a CPU that has a unit for it.

    Weights, gradients and sums stay in float32. Elsewhere it changes nothing: on a GPU, MMEngine's
    ``AmpOptimWrapper`` is what decides.

    Args:
        device: Where the tensors are.
    """
    if device.type == 'cpu' and multiplies_bfloat16():
        return torch.autocast('cpu', torch.bfloat16)
    return nullcontext()


def require_precision(optim_wrapper: Mapping) -> None:
    """Refuses MMEngine's mixed precision where it cannot work.

    Args:
        optim_wrapper: As a config declares it.

    Raises:
        UserError: It is ``AmpOptimWrapper``, and there is no GPU.
    """
    mixed = optim_wrapper.get('type') in ('AmpOptimWrapper', AmpOptimWrapper)
    if mixed and get_device() == 'cpu':
        raise UserError(
            'automatic mixed precision (AmpOptimWrapper) needs a GPU, and none is there: leave '
            "--amp out, or set optim_wrapper.type to 'OptimWrapper'."
        )
