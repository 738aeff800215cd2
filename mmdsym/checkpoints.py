"""Lets torch >= 2.6 read the checkpoints that MMEngine writes, and nothing more.

Since 2.6 ``torch.load`` refuses every pickled class it does not know. MMEngine 0.10 stores its
log history (:class:`mmengine.logging.HistoryBuffer`, which holds NumPy arrays) in a checkpoint,
so that its own checkpoints can neither be resumed nor tested. The check itself stays on: exactly
the classes that MMEngine writes are added to torch's list of safe ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
from mmengine.logging import HistoryBuffer

# The NumPy types that a history or a best score can hold.
_NUMPY_TYPES = ('int64', 'float32', 'float64')
_MULTIARRAY_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray')
_STATISTICS = ('min', 'max', 'current', 'mean')


def history_statistic(owner: object, name: str) -> Callable:
    """Stands in for ``getattr`` when a checkpoint is read.

    A :class:`HistoryBuffer` is pickled together with its four statistics, which pickle writes as
    ``getattr(HistoryBuffer, 'mean')``. The real ``getattr`` would open every attribute of every
    allowed class to a forged checkpoint; this one knows those four alone.

    Args:
        owner: Must be :class:`HistoryBuffer`.
        name: ``'min'``, ``'max'``, ``'current'`` or ``'mean'``.

    Returns:
        The method of that name.

    Raises:
        ValueError: For any other owner or name.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(
            f'the checkpoint asks for attribute {name!r} of {owner!r}, which MMEngine never '
            'writes: do not load it unless you trust its source'
        )
    return getattr(HistoryBuffer, name)


def allowed_globals() -> list[Callable | tuple[Callable, str]]:
    """Lists what a checkpoint of MMEngine 0.10 may contain besides tensors and plain values.

    Returns:
        Entries for ``torch.serialization.add_safe_globals``: a class or function, or a pair of
        it and the name under which a checkpoint refers to it.
    """
    # NumPy 2 moved its private module: a checkpoint names the place that its writer had.
    rebuild_array = numpy.empty(0).__reduce__()[0]
    rebuild_scalar = numpy.float64().__reduce__()[0]
    return [
        HistoryBuffer,
        (history_statistic, 'builtins.getattr'),
        numpy.ndarray,
        numpy.dtype,
        *(type(numpy.dtype(name)) for name in _NUMPY_TYPES),
        *((rebuild_array, f'{module}._reconstruct') for module in _MULTIARRAY_MODULES),
        *((rebuild_scalar, f'{module}.scalar') for module in _MULTIARRAY_MODULES),
    ]


def allow_mmengine_checkpoints() -> None:
    """Adds :func:`allowed_globals` to torch's safe classes; harmless when called twice.

    Older torch (< 2.6) reads MMEngine's checkpoints as they are and is left alone.
    """
    major, minor = (int(part) for part in torch.__version__.split('.')[:2])
    if (major, minor) >= (2, 6):
        torch.serialization.add_safe_globals(allowed_globals())
