"""TensorFlow's 'same' padding as constants, which runtimes fold into the convolution."""

from __future__ import annotations

from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import nn

_STRIDES_IN_ALL = 32


def fix_same_padding(network: nn.Module, divisor: int) -> int:
    """Replaces every convolution that pads by the size of its input by one with fixed padding.

    How much is padded depends on the remainder of the input's size by the stride alone. Where the
    images are padded to multiples of 32, it is known: there is none.

    Args:
        network: Changed in place; predicts the same as before.
        divisor: Of the sizes of its inputs. Unless it is a multiple of 32, nothing is done.

    Returns:
        Number of convolutions replaced.
    """
    if divisor % _STRIDES_IN_ALL:
        return 0
    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, Conv2dSame)
    ]
    for parent, name, convolution in places:
        setattr(parent, name, _with_fixed_padding(convolution))
    return len(places)


def _with_fixed_padding(convolution: Conv2dSame) -> nn.Sequential:
    """Returns the convolution behind a layer of zeros, for inputs that the stride divides."""
    pads = []
    for axis in (1, 0):
        stride = convolution.stride[axis]
        size = _STRIDES_IN_ALL * stride
        total = get_same_padding(
            size, convolution.kernel_size[axis], stride, convolution.dilation[axis]
        )
        pads += [total // 2, total - total // 2]
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        dilation=convolution.dilation,
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.load_state_dict(convolution.state_dict())
    return nn.Sequential(nn.ZeroPad2d(pads), plain)
