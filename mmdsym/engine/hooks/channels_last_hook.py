"""Convolutions in the memory layout that CPUs and tensor cores like best."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdsym.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lays the model's weights out as channels_last; its activations follow.

    The numbers stay the same but for rounding.
    """

    def before_run(self, runner: Runner) -> None:
        """Changes the layout before training or testing starts."""
        runner.model.to(memory_format=torch.channels_last)
