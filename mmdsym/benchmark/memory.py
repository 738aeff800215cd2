"""How much memory a process has needed."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory_mib() -> float:
    """Returns the most memory of this process so far, in MiB.

    On a GPU what its tensors took there; otherwise the resident memory with all libraries.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kibibytes, but in bytes on macOS.
    return peak / (2**20 if sys.platform == 'darwin' else 2**10)
