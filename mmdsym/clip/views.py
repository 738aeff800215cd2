"""What of a box and its surroundings a CLIP model gets to see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmdsym.crops import square_windows
from mmdsym.errors import UserError

MIN_SIDE = 4.0
"""Smallest side of a window in pixels: a smaller one would show one blurred pixel."""


@dataclass(frozen=True)
class CropView:
    """One way to look at a box.

    Args:
        context: Size of the window in units of the box, from 1.
        shape: ``'square'`` keeps proportions (side: the box's longer side times ``context``);
            ``'box'`` takes the box's own shape and warps it to a square, so that its border lies
            at the same place of every crop: that shows a wrong extent, but hides proportions.

    Raises:
        UserError: Impossible values.
    """

    context: float = 1.3
    shape: str = 'square'

    def __post_init__(self) -> None:
        if self.shape not in ('square', 'box'):
            raise UserError(f"the crop shape '{self.shape}' does not exist: use 'square' or 'box'.")
        if not self.context >= 1:
            raise UserError(f'the crop context is {self.context}: set it to 1 or more.')

    def windows(self, boxes: Tensor) -> Tensor:
        """Returns what to cut out.

        Args:
            boxes: (N, 4), x1 y1 x2 y2 in pixels, of finite coordinates.

        Returns:
            (N, 4), centred on the boxes; may reach beyond the image.
        """
        if self.shape == 'square':
            return square_windows(boxes, self.context, MIN_SIDE)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = (boxes[:, 2:] - boxes[:, :2]) * self.context
        half = sides.clamp(min=MIN_SIDE) / 2
        return torch.cat([centre - half, centre + half], dim=1)


def visible_boxes(boxes: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Clips boxes to an image and says which of them show something of it.

    Args:
        boxes: (N, 4), x1 y1 x2 y2 in pixels; anything, NaN included.
        image_size: (width, height) in pixels.

    Returns:
        The clipped boxes, (N, 4), zeros where nothing is visible; and (N,), bool.
    """
    width, height = image_size
    limit = boxes.new_tensor([width, height, width, height])
    finite = boxes.isfinite().all(dim=1)
    clipped = torch.minimum(boxes.nan_to_num().clamp(min=0), limit)
    visible = finite & (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return torch.where(visible[:, None], clipped, torch.zeros_like(clipped)), visible
