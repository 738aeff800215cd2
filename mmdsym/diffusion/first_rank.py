"""Work that one process does for all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from mmengine.dist import broadcast_object_list, get_dist_info

from mmdsym.errors import UserError

Result = TypeVar('Result')


def from_first_rank(work: Callable[[], Result]) -> Result:
    """Lets rank 0 do some work while the others wait, and returns its result on every rank.

    All ranks must call it. They may wait for days, where NCCL would give up after ten minutes.

    Args:
        work: Called on rank 0 alone; its result must be picklable.

    Raises:
        UserError: The work raised it; on every rank.
        RuntimeError: On the other ranks, where the work failed in another way.
    """
    rank, world_size = get_dist_info()
    if world_size == 1:
        return work()
    group = torch.distributed.new_group(backend='gloo', timeout=timedelta(days=7))
    answer: list = [None, None]
    if rank == 0:
        try:
            answer[0] = work()
        except Exception as error:
            answer[1] = error if isinstance(error, UserError) else RuntimeError(repr(error))
            broadcast_object_list(answer, src=0, group=group)
            raise
    broadcast_object_list(answer, src=0, group=group)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
