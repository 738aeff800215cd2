"""How the processes of a distributed training find each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.dist import init_dist, is_distributed


def start_processes(launcher: str, dist_settings: Mapping | None = None) -> None:
    """Joins the other processes of the launcher, unless that is done or there are none.

    MMEngine's own way asks each process for its GPU; without one, torchrun's processes speak gloo.

    Args:
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        dist_settings: ``env_cfg.dist_cfg`` of the config.
    """
    if launcher == 'none' or is_distributed():
        return
    if launcher == 'pytorch' and not torch.cuda.is_available():
        torch.distributed.init_process_group('gloo')
    else:
        init_dist(launcher, **(dist_settings or {}))
