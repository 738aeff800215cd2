"""How much memory a process has needed."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path('/proc/self/status')


def peak_memory_mib() -> float:
    """Returns the most memory of this process so far, in MiB.

    On a GPU what its tensors took there; otherwise the resident memory with all libraries.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # On Linux, getrusage hands a parent's peak on to the processes that it starts.
    found = re.search(r'VmHWM:\s+(\d+) kB', _STATUS.read_text()) if _STATUS.is_file() else None
    if found:
        return int(found[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kibibytes, but in bytes on macOS.
    return peak / (2**20 if sys.platform == 'darwin' else 2**10)
