"""How the processes of a distributed training find each other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

import torch
from mmengine.dist import init_dist, is_distributed


def start_processes(launcher: str, dist_settings: Mapping | None = None) -> None:
    """Joins the other processes of the launcher, unless that is done or there are none.

    MMEngine's own way asks each process for its GPU; without one, the processes of torchrun and of
    Slurm speak gloo.

    Args:
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        dist_settings: ``env_cfg.dist_cfg`` of the config.
    """
    if launcher == 'none' or is_distributed():
        return
    if launcher in ('pytorch', 'slurm') and not torch.cuda.is_available():
        if launcher == 'slurm':
            _name_as_torchrun_does()
        torch.distributed.init_process_group('gloo')
    else:
        init_dist(launcher, **(dist_settings or {}))


def _name_as_torchrun_does() -> None:
    """Tells torch what Slurm calls by other names."""
    names = dict(RANK='SLURM_PROCID', LOCAL_RANK='SLURM_LOCALID', WORLD_SIZE='SLURM_NTASKS')
    os.environ.update({name: os.environ[of_slurm] for name, of_slurm in names.items()})
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        listed = ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']]
        found = subprocess.run(listed, capture_output=True, text=True, check=True)
        os.environ['MASTER_ADDR'] = found.stdout.split()[0]
