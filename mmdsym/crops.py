"""Square crops around boxes, at the resolution of the original image."""

from __future__ import annotations

import math

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
    if not len(windows):
        return image.new_zeros(0, image.shape[0], size, size)
    windows = windows.to(image)
    if image.device.type == 'cpu':
        return torch.stack([_crop_by_axis(image, window, size) for window in windows])
    return crop_by_roi_align(image, windows, size)


def crop_by_roi_align(image: Tensor, windows: Tensor, size: int) -> Tensor:
    """Does what :func:`crop_windows` does in few steps, which suits a GPU.

    Args:
        image: As there.
        windows: As there, at least one, on the image's device.
        size: As there.
    """
    height, width = image.shape[-2:]
    low, high = windows.amin(dim=0), windows.amax(dim=0)
    beyond = torch.stack([-low[0], high[2] - width, -low[1], high[3] - height])
    # roi_align takes zeros from beyond the border, which no surface has.
    left, right, top, bottom = (beyond.ceil().clamp(min=0).long() + 1).tolist()
    padded = F.pad(image[None], (left, right, top, bottom), mode='replicate')
    shifted = windows + image.new_tensor([left, top, left, top])
    index = shifted.new_zeros(len(shifted), 1)
    return roi_align(padded, torch.cat([index, shifted], dim=1), size, aligned=True)


def _crop_by_axis(image: Tensor, window: Tensor, size: int) -> Tensor:
    """One crop, (C, size, size): rows first, then columns, which takes half of roi_align's time."""
    left, top, right, bottom = window.tolist()
    rows, by_row = _sampling(top, bottom, image.shape[-2], size)
    columns, by_column = _sampling(left, right, image.shape[-1], size)
    with torch.autocast('cpu', enabled=False):
        return by_row.to(image) @ image[:, rows, columns] @ by_column.to(image).T


def _sampling(begin: float, end: float, length: int, size: int) -> tuple[slice, Tensor]:
    """Which pixels of an axis an interval needs, and their weights in each of ``size`` means.

    As in roi_align, each mean is of samples at most one pixel apart, between pixels linear.
    """
    samples = math.ceil((end - begin) / size)
    step = (end - begin) / (size * samples)
    # The centre of pixel 0 lies at 0.5.
    places = begin - 0.5 + step * (torch.arange(size * samples, dtype=torch.float64) + 0.5)
    places = places.clamp(0, length - 1)
    first, last = math.floor(places[0]), math.ceil(places[-1])
    # From the first pixel on, single precision is enough.
    distances = (places - first).float()[:, None] - torch.arange(last - first + 1)
    weights = distances.abs_().neg_().add_(1).clamp_(min=0)
    return slice(first, last + 1), weights.view(size, samples, -1).mean(dim=1)
