"""On what and with what something was run."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from mmdsym.half_precision import bfloat16_is_faster
from mmdsym.versions import installed_version

PACKAGES = ('torch', 'mmdet', 'mmengine', 'mmcv', 'timm')


def hardware() -> str:
    """Returns what trains here in a few words: the GPU, or else the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def processor() -> str:
    """Returns the processor in a few words, among them the precision that networks learn in."""
    precision = 'bfloat16' if bfloat16_is_faster() else 'float32'
    return f'{os.cpu_count()} CPU cores ({model_name() or platform.machine()}, {precision})'


def model_name(cpuinfo: Path = Path('/proc/cpuinfo')) -> str:
    """Returns what the processor calls itself, or nothing where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ''
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, '')


def versions() -> dict[str, str]:
    """Returns the versions of mmdsym and of the packages that it trains with."""
    from mmdsym import __version__

    return {'mmdsym': __version__} | {name: str(installed_version(name)) for name in PACKAGES}


def commit() -> str:
    """Returns the repository's present commit, marked where files differ from it.

    A copy without the history may be told by the environment variable ``MMDSYM_COMMIT``.
    """
    told = os.environ.get('MMDSYM_COMMIT', 'unknown')
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=10']
    folder = Path(__file__).resolve().parents[2]
    if not (folder / '.git').exists():
        # Installed; a repository that happens to lie around it is another one's.
        return told
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError:
        return told
    return done.stdout.strip() or told
