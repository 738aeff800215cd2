"""Memory that a training step frees is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from mmdsym.engine.freed_memory import keep_freed_memory

COUNT_PAGES = """
import resource, sys
import torch
from mmdsym.engine.freed_memory import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()
def step():
    tensors = [torch.ones(2**20 * megabytes // 4) for megabytes in (3, 40, 17)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fetched_pages(how: str) -> int:
    """Pages that the system had to hand out in ten steps of 60 MB."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    clean.pop('GLIBC_TUNABLES', None)
    found = subprocess.run(
        [sys.executable, '-c', COUNT_PAGES, how],
        capture_output=True,
        text=True,
        env=clean,
        check=True,
    )
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='of glibc alone')
def test_freed_memory_is_not_fetched_again():
    assert fetched_pages('keep') < 0.1 * fetched_pages('leave')


@pytest.mark.parametrize('name', ['MALLOC_ARENA_MAX', 'GLIBC_TUNABLES'])
def test_what_the_environment_says_is_left_alone(name, monkeypatch):
    monkeypatch.setenv(name, '2')
    assert not keep_freed_memory()
