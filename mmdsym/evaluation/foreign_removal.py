"""What a filter removes from foreign images, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALLOWED_COST = 0.05
"""Share of true boxes at whose cost the removal is also given, whatever the thresholds are."""


@dataclass(frozen=True)
class ForeignRemoval:
    """Boxes that the teacher's own thresholds let pass, and what the filter does to them.

    Attributes:
        foreign_boxes: Boxes on foreign images; all are false.
        true_boxes: Right boxes on the data set's images.
        removed: Share of the former that the filter's thresholds remove; NaN without any.
        cost: Share of the latter that they remove.
        removed_at_allowed_cost: Share removed by the one threshold of the filter's score that
            costs at most 5 % of the right boxes.
    """

    foreign_boxes: int
    true_boxes: int
    removed: float
    cost: float
    removed_at_allowed_cost: float


@dataclass(frozen=True)
class PassedBoxes:
    """Boxes that pass the teacher's thresholds.

    Attributes:
        fused: Scores of the filter, (N,).
        passes: Whether they pass the filter's thresholds as well, (N,).
    """

    fused: np.ndarray
    passes: np.ndarray

    @classmethod
    def select(
        cls,
        teacher: np.ndarray,
        fused: np.ndarray,
        labels: np.ndarray,
        teacher_thresholds: np.ndarray,
        fused_thresholds: np.ndarray,
    ) -> PassedBoxes:
        """Takes the boxes that the teacher's thresholds let pass.

        Args:
            teacher: Its scores, (N,).
            fused: Scores of the filter, (N,).
            labels: Class indices, (N,).
            teacher_thresholds: Per class, (num_classes,).
            fused_thresholds: Likewise.
        """
        passed = teacher >= teacher_thresholds[labels]
        fused, labels = fused[passed], labels[passed]
        return cls(fused, fused >= fused_thresholds[labels])


def measure_removal(foreign: PassedBoxes, true: PassedBoxes) -> ForeignRemoval:
    """Compares boxes on foreign images with the right ones elsewhere."""
    count = len(true.fused)
    # Removing all below the k-th lowest right score costs k right boxes.
    allowed = int(ALLOWED_COST * count)
    limit = np.sort(true.fused)[allowed] if count else np.inf
    return ForeignRemoval(
        len(foreign.fused),
        count,
        _share(~foreign.passes),
        _share(~true.passes),
        _share(foreign.fused < limit),
    )


def _share(chosen: np.ndarray) -> float:
    return float(chosen.mean()) if len(chosen) else float('nan')
