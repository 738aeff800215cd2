"""How well a box fits its defect, read from the features of its crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn


class ExtentHead(nn.Module):
    """A linear layer that estimates a box's overlap with its defect, and where the borders lie.

    Args:
        width: Length of a feature, all views together.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, 5)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reads features.

        Args:
            features: (N, width), unit vectors.

        Returns:
            Logit of the expected IoU, (N,); and the borders' offsets, (N, 4), see
            :func:`mmdsym.clip.crop_augmentation.edge_offsets`.
        """
        found = self.linear(features * self.width**0.5)
        return found[:, 0], found[:, 1:]

    def loss(self, features: Tensor, overlaps: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Compares with what is known of N labelled boxes that were moved.

        Args:
            features: (N, width), unit vectors.
            overlaps: (N,), true IoU in [0, 1].
            offsets: (N, 4), true offsets.

        Returns:
            Losses of overlap and of offsets, scalars; zero without boxes.
        """
        if not len(features):
            nothing = self.linear.weight.sum() * 0
            return nothing, nothing
        logits, found = self(features)
        entropy = F.binary_cross_entropy_with_logits(logits, overlaps)
        # What remains of the entropy where the estimate is exact carries no message.
        floor = F.binary_cross_entropy(overlaps, overlaps)
        return entropy - floor, F.smooth_l1_loss(found, offsets, beta=0.1)

    @torch.no_grad()
    def expected_overlap(self, features: Tensor) -> Tensor:
        """Returns the expected IoU of boxes with their defects, (N,) in [0, 1]."""
        return self(features)[0].sigmoid()
