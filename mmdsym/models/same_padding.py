"""TensorFlow's 'same' padding without copies of feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from timm.layers import Conv2dSame
from torch import Tensor, nn

from .cpu_layers import depthwise_conv2d


# MMEngine's `init_cfg` finds a layer by the names of its class and of the bases that it names.
class WeightPaddedConv2d(Conv2dSame, nn.Conv2d):
    """A convolution of stride 2 that pads its kernel where timm pads the image.

    On even sides TensorFlow adds one row and column more at the end than at the beginning, which
    torch's convolutions cannot. timm therefore copies the feature map into a larger one, the
    largest maps of the network among them. A kernel with a row and a column of zeros before it
    comes to the same with equal padding on all sides. On a CPU alone: for GPUs cuDNN has fast
    kernels of odd sizes.

    Attributes:
        any_size: Whether a trace of the network may get images of another size; see
            :func:`pad_kernels`.
    """

    any_size: bool

    def forward(self, x: Tensor) -> Tensor:
        """Computes what :class:`timm.layers.Conv2dSame` does, up to rounding."""
        traced = torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
        if x.device.type != 'cpu' or (self.any_size and traced):
            return super().forward(x)
        # While torch traces, sides are no plain numbers.
        odd = {int(side) % 2 for side in x.shape[-2:]}
        if len(odd) > 1:
            return super().forward(x)
        weight = self.weight if odd == {1} else F.pad(self.weight, (1, 0, 1, 0))
        padding = (self.kernel_size[0] - 1) // 2
        return depthwise_conv2d(x, weight, self.bias, self.stride, padding, self.groups)


def pad_kernels(network: nn.Module, any_size: bool = False) -> None:
    """Lets the convolutions of a timm network pad their kernels where that is possible.

    Args:
        network: Changed in place; the names and values of its tensors stay.
        any_size: Whether what is traced of the network, ONNX files and counts of operations among
            it, must be timm's own steps, which suit images of any size. Otherwise it is faster.
    """
    for module in network.modules():
        if type(module) is Conv2dSame and _can(module):
            module.__class__ = WeightPaddedConv2d
            module.any_size = any_size


def _can(conv: Conv2dSame) -> bool:
    height, width = conv.kernel_size
    # A kernel of one pixel needs no padding.
    is_odd_square = height == width and height % 2 == 1 and height > 1
    return is_odd_square and conv.stride == (2, 2) and conv.dilation == (1, 1)
