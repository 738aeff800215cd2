"""Where older code looks for :mod:`mmdsym.atomic_file`."""

from __future__ import annotations

from mmdsym.atomic_file import write_file

__all__ = ['write_file']
