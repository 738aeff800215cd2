"""The tensors that stand for regions, in the ranges that the model computes with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, cat, uint8

# Area of mid-grey that counts like known pixels, in units of the window: a window that is to be
# painted wholly has no others.
_PRIOR_AREA = 0.05


class RegionBatch(NamedTuple):
    """Regions as floating-point tensors.

    Attributes:
        image: (N, C, S, S), in units of half the range of grey levels, without ``brightness``.
        region: (N, 1, S, S), in [0, 1]: what is to be painted.
        box: (N, 1, S, S), in [0, 1]: where the defect lies.
        brightness: (N, C, 1, 1), in [-1, 1]: the mean of what is known of the window. Surfaces
            differ in it more than in anything else.
    """

    image: Tensor
    region: Tensor
    box: Tensor
    brightness: Tensor

    def known(self) -> Tensor:
        """Returns the surroundings, 0 where the region is."""
        return self.image * (1 - self.region)

    def masks(self) -> Tensor:
        """Returns region and box as (N, 2, S, S)."""
        return cat([self.region, self.box], dim=1)


def to_batch(image: Tensor, region: Tensor, box: Tensor) -> RegionBatch:
    """Makes a batch of uint8 pixels (N, C, S, S) and masks (N, 1, S, S)."""
    image, region, box = image.float() / 127.5 - 1, region.float() / 255, box.float() / 255
    known = 1 - region
    area = known.sum(dim=(2, 3), keepdim=True) + _PRIOR_AREA * region[0].numel()
    brightness = (image * known).sum(dim=(2, 3), keepdim=True) / area
    return RegionBatch(image - brightness, region, box, brightness)


def to_pixels(image: Tensor, brightness: Tensor) -> Tensor:
    """Returns uint8 pixels on the CPU, of the shape of ``image``."""
    grey = ((image + brightness).float().cpu() + 1) * 127.5
    return grey.round().clamp(0, 255).to(uint8)
