"""What a training step frees stays with the process, for the next step to take."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's ``mallopt``, see its manual page."""

_LARGEST_BLOCK = 2**30
_NEVER = 2**31 - 1
_GROWTH = 2**26


def keep_freed_memory() -> bool:
    """Keeps glibc from giving large blocks back to the system, which would clear them anew.

    Each training step on a CPU allocates and frees the same tensors, some of tens of megabytes. The
    peak of memory stays what it is. Where the environment sets glibc's allocator up, by
    ``MALLOC_...`` or ``GLIBC_TUNABLES``, that is left alone.

    Returns:
        Whether the C library took it.
    """
    is_set = 'GLIBC_TUNABLES' in os.environ or any(n.startswith('MALLOC_') for n in os.environ)
    if is_set or sys.platform != 'linux':
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    # In this order: once one of them is set, glibc adapts the size of blocks no more.
    return mallopt is not None and all(
        mallopt(parameter, value)
        for parameter, value in (
            (_MMAP_THRESHOLD, _LARGEST_BLOCK),
            (_TRIM_THRESHOLD, _NEVER),
            (_TOP_PAD, _GROWTH),
        )
    )
