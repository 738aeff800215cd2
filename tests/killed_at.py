"""Runs a tool that kills itself, with SIGKILL, where it calls a function for the nth time.

python killed_at.py MODULE:NAME COUNT TOOL [arguments of the tool]

Nothing is tidied up, no handler runs: as when memory ran out or the power went.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys


def kill_at(place: str, count: int) -> None:
    module, _, name = place.partition(':')
    owner = importlib.import_module(module)
    *parts, last = name.split('.')
    for part in parts:
        owner = getattr(owner, part)
    original = getattr(owner, last)
    calls = 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, last, counted)


if __name__ == '__main__':
    place, count, *sys.argv = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    kill_at(place, int(count))
    runpy.run_path(sys.argv[0], run_name='__main__')
