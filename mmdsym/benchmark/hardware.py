"""On what and with what something was run."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from mmdsym.versions import installed_version

PACKAGES = ('torch', 'mmdet', 'mmengine', 'mmcv', 'timm')


def hardware() -> str:
    """Returns the machine in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{os.cpu_count()} CPU cores ({platform.machine()})'


def versions() -> dict[str, str]:
    """Returns the versions of mmdsym and of the packages that it trains with."""
    from mmdsym import __version__

    return {'mmdsym': __version__} | {name: str(installed_version(name)) for name in PACKAGES}


def commit() -> str:
    """Returns the repository's present commit, marked where files differ from it."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=10']
    folder = Path(__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return done.stdout.strip() or 'unknown'
