"""Where half of the digits are enough, and make a CPU faster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def multiplies_bfloat16() -> bool:
    """Says whether this processor has a unit for it (AMX); without one, bfloat16 is slower here."""
    # torch keeps the question to itself, and older ones do not know it.
    ask = getattr(torch.cpu, '_is_amx_tile_supported', None)
    return torch.backends.mkldnn.is_available() and ask is not None and ask()


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
