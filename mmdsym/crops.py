"""Square crops around boxes, at the resolution of the original image."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor
from torchvision.ops import roi_align


def square_windows(boxes: Tensor, context: float = 1.0, min_side: float = 1.0) -> Tensor:
    """Returns the squares that show boxes with some of their surroundings.

    Args:
        boxes: (N, 4), x1 y1 x2 y2 in pixels.
        context: Side of the square in units of the box's longer side, from 1.
        min_side: Smallest side in pixels.

    Returns:
        (N, 4), centred on the boxes; may reach beyond the image.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    half = (longer * context).clamp(min=min_side)[:, None] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def crop_windows(image: Tensor, windows: Tensor, size: int) -> Tensor:
    """Cuts windows out of an image and brings them to one size, averaged where they shrink.

    Args:
        image: (C, H, W), floating point. Beyond its border its edge pixels go on.
        windows: (N, 4), x1 y1 x2 y2 in pixels; of finite coordinates and positive area.
        size: Side of the results in pixels.

    Returns:
        (N, C, size, size).
    """
    height, width = image.shape[-2:]
    if not len(windows):
        return image.new_zeros(0, image.shape[0], size, size)
    low, high = windows.amin(dim=0), windows.amax(dim=0)
    beyond = torch.stack([-low[0], high[2] - width, -low[1], high[3] - height])
    # roi_align takes zeros from beyond the border, which no surface has.
    left, right, top, bottom = (beyond.ceil().clamp(min=0).long() + 1).tolist()
    padded = F.pad(image[None], (left, right, top, bottom), mode='replicate')
    shifted = windows.to(image) + image.new_tensor([left, top, left, top])
    index = shifted.new_zeros(len(shifted), 1)
    return roi_align(padded, torch.cat([index, shifted], dim=1), size, aligned=True)
