"""The tensors that stand for regions, in the ranges that the model computes with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RegionBatch(NamedTuple):
    """Regions as floating-point tensors.

    Attributes:
        image: (N, C, S, S), in [-1, 1].
        region: (N, 1, S, S), in [0, 1]: what is to be painted.
        box: (N, 1, S, S), in [0, 1]: where the defect lies.
    """

    image: Tensor
    region: Tensor
    box: Tensor


def to_unit_range(image: Tensor, region: Tensor, box: Tensor) -> RegionBatch:
    """Scales uint8 pixels to [-1, 1] and uint8 masks to [0, 1]."""
    return RegionBatch(image.float() / 127.5 - 1, region.float() / 255, box.float() / 255)
