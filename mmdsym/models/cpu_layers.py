"""Layers of which torch has slow or broken kernels on a CPU, computed another way."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

SLOW_SIDE = 4
"""From which side of a depthwise kernel on its gradients in bfloat16 are slow."""
CHANNEL_BLOCK = 16
"""Channels that AVX-512 takes at once; AVX2 takes half as many."""


class ContiguousGroupNorm(nn.GroupNorm):
    """GroupNorm that leaves channels_last for as long as it computes.

    With few channels in a group, torch's kernel for channels_last takes two to three times as long
    as the copies and the other kernel together.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Computes what :class:`torch.nn.GroupNorm` does, up to rounding."""
        if x.device.type != 'cpu' or x.ndim != 4 or torch.onnx.is_in_onnx_export():
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that learns fast in mixed precision, see :func:`depthwise_conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Computes what :class:`torch.nn.Conv2d` does."""
        return depthwise_conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)


class SubsampledConv2d(nn.Conv2d):
    """A strided convolution of single pixels that leaves out first what the stride leaves out."""

    def forward(self, x: Tensor) -> Tensor:
        """Computes what :class:`torch.nn.Conv2d` does, up to rounding."""
        if x.device.type != 'cpu' or torch.onnx.is_in_onnx_export():
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


def avoid_broken_gradients(model: nn.Module) -> None:
    """Lets each strided 1x1 convolution of few channels be a :class:`SubsampledConv2d`.

    In channels_last and with fewer channels than a block, oneDNN writes the gradient of their
    kernels past its workspace, which ends a training in "double free or corruption" or a
    segmentation fault, or lets it learn nonsense (oneDNN #6035).

    Args:
        model: Changed in place; the names and values of its tensors stay.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _has_broken_gradient(module):
            module.__class__ = SubsampledConv2d


def avoid_slow_norms(model: nn.Module) -> None:
    """Lets each GroupNorm of a model be a :class:`ContiguousGroupNorm`.

    Args:
        model: Changed in place; the names and values of its tensors stay.
    """
    for module in model.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = ContiguousGroupNorm


def avoid_slow_gradients(model: nn.Module) -> None:
    """Lets each depthwise convolution with a large kernel be a :class:`DepthwiseConv2d`.

    Args:
        model: Changed in place; the names and values of its tensors stay.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _has_slow_gradient(module):
            module.__class__ = DepthwiseConv2d


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: int | tuple[int, int],
    groups: int,
) -> Tensor:
    """Convolves; under autocast on a CPU, gradients of large kernels take another way.

    oneDNN computes them in bfloat16 with slow kernels, some of which take 3 to 15 times as long as
    float32. Those of the kernel, and of the input where the layer has no stride, are computed as
    forward convolutions in bfloat16 instead; that of a strided layer's input in float32.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, height, width); of another shape where it is no depthwise convolution, and
            then nothing takes another way.
        bias: (C,), or none.
        stride: Of rows and columns.
        padding: Zeros on each side.
        groups: C.
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    mixed = x.device.type == 'cpu' and torch.is_autocast_enabled('cpu')
    is_depthwise = groups == x.shape[1] == len(weight) > 1
    slow = is_depthwise and max(weight.shape[-2:]) >= SLOW_SIDE
    if not (learns and mixed and slow):
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)
    padding = (padding, padding) if isinstance(padding, int) else padding
    dtype = torch.get_autocast_dtype('cpu')
    found = _FastGradient.apply(x.to(dtype), weight, stride, padding, groups)
    return found if bias is None else found + bias.to(dtype)[:, None, None]


class _FastGradient(torch.autograd.Function):
    """A depthwise convolution without bias, in the precision of its input."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, padding, groups
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.settings
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _gradient_of_input(x, gradient.to(x.dtype), weight, stride, padding)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_kernel(x, gradient.to(x.dtype), stride, padding, weight.shape)
            of_weight = of_weight.to(weight.dtype)
        return of_x, of_weight, None, None, None


def _gradient_of_input(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Convolves the gradient with the turned kernel; in float32 where the layer has a stride."""
    channels, _, *kernel = weight.shape
    margin = tuple(side - 1 - pad for side, pad in zip(kernel, padding, strict=True))
    if stride == (1, 1) and min(margin) >= 0:
        turned = weight.to(x.dtype).flip(-2, -1)
        return F.conv2d(gradient, turned, None, 1, margin, 1, channels)
    of_x, _, _ = torch.ops.aten.convolution_backward(
        *(tensor.float() for tensor in (gradient, x, weight)),
        *(None, stride, padding, (1, 1), False, (0, 0), channels),
        (True, False, False),
    )
    return of_x.to(x.dtype)


def _gradient_of_kernel(
    x: Tensor,
    gradient: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    shape: torch.Size,
) -> Tensor:
    """Convolves each channel of each image with its gradient, and sums over the images.

    Forward kernels are fast also where the kernel is as large as a feature map; a stride of the
    layer is a dilation here.
    """
    images, channels, height, width = x.shape
    maps = x.permute(2, 3, 0, 1).reshape(1, height, width, images * channels).permute(0, 3, 1, 2)
    kernels = gradient.reshape(images * channels, 1, *gradient.shape[-2:])
    found = F.conv2d(maps, kernels, None, 1, padding, stride, images * channels)
    # Beyond lies what the stride left out.
    found = found[..., : shape[-2], : shape[-1]].reshape(images, *shape)
    return found.float().sum(dim=0)


def _has_slow_gradient(conv: nn.Conv2d) -> bool:
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1
    is_plain = conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)
    large = max(conv.kernel_size) >= SLOW_SIDE
    return is_depthwise and is_plain and large and conv.dilation == (1, 1)


def _has_broken_gradient(conv: nn.Conv2d) -> bool:
    is_pointwise = conv.kernel_size == (1, 1) and conv.groups == 1
    is_padded = conv.padding not in ((0, 0), 'valid')
    strides = is_pointwise and not is_padded and max(conv.stride) > 1
    return strides and conv.in_channels < CHANNEL_BLOCK
