"""The data preprocessor as part of the graph: nobody can normalise wrongly."""

from __future__ import annotations

import torch
from mmdet.models import DetDataPreprocessor
from torch import Tensor, nn
from torch.nn import functional

from mmdsym.errors import UserError


class Normalisation(nn.Module):
    """From RGB pixels to what the network expects: order of channels, mean and std, padding.

    Args:
        preprocessor: The detector's own; only MMDetection's plain ``DetDataPreprocessor``.

    Raises:
        UserError: It is another one, whose work is unknown here.
    """

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        if type(preprocessor) is not DetDataPreprocessor:
            raise UserError(
                f'the data preprocessor {type(preprocessor).__name__} cannot be exported to ONNX; '
                'use DetDataPreprocessor.'
            )
        # Pipelines read images as BGR; the graph takes RGB.
        self.reverse = not preprocessor._channel_conversion
        self.divisor = preprocessor.pad_size_divisor
        self.pad_value = float(preprocessor.pad_value)
        normalises = preprocessor._enable_normalize
        mean = preprocessor.mean if normalises else torch.zeros(3, 1, 1)
        std = preprocessor.std if normalises else torch.ones(3, 1, 1)
        self.register_buffer('mean', mean.detach().clone())
        self.register_buffer('std', std.detach().clone())

    def forward(self, image: Tensor) -> Tensor:
        """Normalises and pads.

        Args:
            image: RGB pixels in 0..255, (B, 3, H, W), uint8.

        Returns:
            (B, 3, H', W'), float32, H' and W' the next multiples of the preprocessor's divisor.
        """
        pixels = image.float()
        if self.reverse:
            pixels = torch.cat([pixels[:, i : i + 1] for i in (2, 1, 0)], dim=1)
        pixels = (pixels - self.mean) / self.std
        if self.divisor <= 1:
            return pixels
        below, right = (-size % self.divisor for size in image.shape[-2:])
        return functional.pad(pixels, (0, right, 0, below), value=self.pad_value)


def frame_of(image: Tensor) -> Tensor:
    """Returns width, height, width, height of the images (B, 3, H, W): no box is larger."""
    return torch._shape_as_tensor(image)[[3, 2, 3, 2]].to(torch.float32)
