"""Where half of the digits are enough, and make a CPU faster."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper

from mmdsym.errors import UserError

SWITCH = 'MMDSYM_BFLOAT16'
_UNITS = ('_is_amx_tile_supported', '_is_avx512_bf16_supported')
_MATRIX_SIZE = 256
_ROUNDS = 20
_WORTH_IT = 0.8
"""Of float32's time, what bfloat16 must stay below: casting to and fro takes some of the gain."""


def bfloat16_is_faster() -> bool:
    """Says whether this processor is to compute in bfloat16: it has a unit for it that is faster.

    A unit alone is no promise: with AMX and with AMD's AVX512-BF16 networks were faster, with
    Intel's AVX512-BF16 in a virtual machine without AMX they took 1.2 to 1.6 times as long. So it
    is tried, once a process. The environment variable ``MMDSYM_BFLOAT16`` overrules the
    answer: ``0`` keeps float32, for the same numbers on all machines.
    """
    wanted = os.environ.get(SWITCH)
    if wanted:
        return wanted != '0'
    return has_bfloat16_unit() and time_of_bfloat16() < _WORTH_IT


def has_bfloat16_unit() -> bool:
    """Says whether this processor multiplies bfloat16 in its own right: AMX, AVX512-BF16."""
    # torch keeps the questions to itself, and older ones do not know them.
    questions = (getattr(torch.cpu, name, None) for name in _UNITS)
    return torch.backends.mkldnn.is_available() and any(ask() for ask in questions if ask)


@cache
@torch.no_grad()
def time_of_bfloat16() -> float:
    """Returns how long a product of matrices takes in bfloat16, as a multiple of float32's time.

    Takes some hundredths of a second at the first call. One thread is asked, and the fastest of
    its attempts counts, so that other work on the machine does not decide.
    """
    matrices = {
        dtype: torch.ones(_MATRIX_SIZE, _MATRIX_SIZE, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    fastest = dict.fromkeys(matrices, math.inf)
    with _one_thread(), torch.autocast('cpu', enabled=False):
        for _ in range(_ROUNDS):
            for dtype, matrix in matrices.items():
                start = time.perf_counter()
                matrix @ matrix
                fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
    return fastest[torch.bfloat16] / fastest[torch.float32]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def autocast_where_fast(device: torch.device) -> AbstractContextManager:
    """Returns a context that computes in bfloat16 on a CPU that is faster in it.

    Weights, gradients and sums stay in float32. Elsewhere it changes nothing: on a GPU, MMEngine's
    ``AmpOptimWrapper`` is what decides.

    Args:
        device: Where the tensors are.
    """
    if device.type == 'cpu' and bfloat16_is_faster():
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
