"""The teacher follows the student as its exponential moving average."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmengine.dist import all_reduce_params, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdsym.registry import HOOKS

from .stage_hook import dsym_model


@HOOKS.register_module()
class TeacherUpdateHook(Hook):
    """Moves the teacher towards the student after each iteration that uses a teacher.

    Buffers move too: a teacher with the BatchNorm statistics of its first day predicts nothing
    (mmdetection #10223). Since each process gathers statistics of its own, the student's are
    averaged over all processes first, so that all of them have the same teacher.

    Args:
        decay: Share of the old teacher kept by an update, in [0, 1).
        warm_up: After ``n`` updates the decay is at most ``(1 + n) / (warm_up + n)``, so that the
            teacher leaves an early student soon. With 10 it takes 890 updates to reach 0.99, and
            4,490 to reach 0.998: in shorter runs this alone says how fast the teacher follows.
    """

    def __init__(self, decay: float = 0.999, warm_up: int = 10) -> None:
        self.decay = decay
        self.warm_up = warm_up

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Updates the teacher."""
        model = dsym_model(runner)
        agree_on_buffers(model.student)
        if not model.stage.uses_teacher:
            return
        first = next(stage for stage in runner.train_loop.schedule.stages if stage.uses_teacher)
        updates = runner.iter - first.begin
        decay = min(self.decay, (1 + updates) / (self.warm_up + updates))
        move_towards(model.teacher, model.student, 1 - decay)


def agree_on_buffers(student: nn.Module) -> None:
    """Averages BatchNorm statistics and the like over all processes; counters stay.

    Args:
        student: Changed in place. Its parameters are the same in all processes anyway.
    """
    if get_world_size() > 1:
        floats = [buffer for buffer in student.buffers() if buffer.is_floating_point()]
        all_reduce_params(floats, op='mean')


@torch.no_grad()
def move_towards(teacher: nn.Module, student: nn.Module, share: float) -> None:
    """Moves every number of the teacher ``share`` of the way to the student's.

    Counters (integers) are copied.

    Args:
        teacher: Changed in place.
        student: Of the same architecture.
        share: In [0, 1].
    """
    floats, targets = [], []
    for own, value in zip(_numbers(teacher), _numbers(student), strict=True):
        if own.is_floating_point():
            floats.append(own)
            targets.append(value)
        else:
            own.copy_(value)
    torch._foreach_lerp_(floats, targets, share)


def _numbers(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
