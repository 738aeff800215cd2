"""Convolutions in the memory layout that CPUs and tensor cores like best."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner

from mmdsym.models.cpu_layers import avoid_broken_gradients, avoid_slow_norms
from mmdsym.models.memory_layout import lay_out_channels_last
from mmdsym.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lays the model's weights out as channels_last (:func:`lay_out_channels_last`).

    The numbers stay the same but for rounding. On a GPU it happens with half precision alone: in
    single precision cuDNN has no fast depthwise convolution for this layout. On a CPU, layers of
    which torch has slow or broken kernels for it take another way, see
    :mod:`mmdsym.models.cpu_layers`.
    """

    def before_run(self, runner: Runner) -> None:
        """Changes the layout before training or testing starts."""
        on_cpu = next(runner.model.parameters()).device.type == 'cpu'
        if on_cpu or _is_mixed(runner.optim_wrapper):
            lay_out_channels_last(runner.model)
        if on_cpu:
            avoid_slow_norms(runner.model)
            avoid_broken_gradients(runner.model)


def _is_mixed(optim_wrapper: OptimWrapper | Mapping | None) -> bool:
    # Before training it may still be a config.
    if isinstance(optim_wrapper, Mapping):
        return optim_wrapper.get('type') == 'AmpOptimWrapper'
    return isinstance(optim_wrapper, AmpOptimWrapper)
