"""Learning in bfloat16 on a CPU that is faster in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmdet.models.detectors import DetectionTransformer, SemiBaseDetector
from mmdet.models.roi_heads.roi_extractors.base_roi_extractor import BaseRoIExtractor
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmdsym.half_precision import SWITCH, bfloat16_is_faster
from mmdsym.models import DSYMDetector
from mmdsym.models.cpu_layers import avoid_slow_gradients
from mmdsym.registry import OPTIM_WRAPPERS

HEAD_METHODS = ('loss_by_feat', 'loss_and_target')
"""What tells MMDetection's box heads from other modules: those of one stage, those of regions."""


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """MMEngine's wrapper, and on a CPU that is faster in bfloat16 a network that computes in it.

    Convolutions and products of matrices are what becomes faster. What the box heads find returns
    to float32 before losses, box coders and suppression see it, and weights, gradients and the
    optimizer stay in float32, so that no scaling of the loss is needed. Two kinds of detectors keep
    float32 throughout, since their coordinates would move by a pixel: the DETR family, whose layers
    hand them on, and MMDetection's own semi-supervised ones, which turn boxes by such products.
    On other CPUs, and on a GPU, it is MMEngine's wrapper; see
    :func:`mmdsym.half_precision.bfloat16_is_faster`.
    """

    _prepared: nn.Module | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Computes losses, and what a teacher finds on the way, in the faster precision."""
        if self._prepared is not model:
            self._prepared, self._shortens = model, self._may_shorten(model)
        faster = torch.autocast('cpu', torch.bfloat16) if self._shortens else nullcontext()
        with super().optim_context(model), faster:
            yield

    def _may_shorten(self, model: nn.Module) -> bool:
        on_cpu = next(model.parameters()).device.type == 'cpu'
        if not (on_cpu and bfloat16_is_faster() and prepare(model)):
            return False
        print_log(f'The network learns in bfloat16; {SWITCH}=0 would keep float32.', 'current')
        return True


def prepare(model: nn.Module) -> bool:
    """Lets each module of a model have the precision that it needs, where a step mixes them.

    Args:
        model: Changed in place: hooks, and layers that compute the same another way.

    Returns:
        Whether the model suits bfloat16 at all.
    """
    if any(map(_computes_coordinates, model.modules())):
        return False
    avoid_slow_gradients(model)
    for module in model.modules():
        # mmcv's operators know no bfloat16, and regions are coordinates.
        if isinstance(module, BaseRoIExtractor) or type(module).__module__.startswith('mmcv.ops'):
            module.register_forward_pre_hook(_take_single_precision, with_kwargs=True)
        if any(hasattr(module, method) for method in HEAD_METHODS):
            module.register_forward_hook(_give_single_precision)
    return True


def _computes_coordinates(module: nn.Module) -> bool:
    turns_boxes = isinstance(module, SemiBaseDetector) and not isinstance(module, DSYMDetector)
    return turns_boxes or isinstance(module, DetectionTransformer)


def _take_single_precision(module: nn.Module, inputs: tuple, settings: dict) -> tuple:
    return _single(inputs), {name: _single(value) for name, value in settings.items()}


def _give_single_precision(head: nn.Module, inputs: tuple, outputs: object) -> object:
    return _single(outputs)


def _single(value: object) -> object:
    """Casts the tensors of nested tuples and lists from half precision to float32."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if type(value) in (tuple, list):
        return type(value)(map(_single, value))
    return value
