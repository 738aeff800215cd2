"""How right a classifier of crops is on those that it has not learned from."""

from __future__ import annotations

from typing import NamedTuple

from scipy.stats import binomtest
from torch import Tensor

from .temperature import expected_calibration_error

_CHANCE_LEVEL = 0.01


class HeldOutQuality(NamedTuple):
    """How right a classifier is on labelled crops that it has not seen.

    Attributes:
        crops: Their number.
        accuracy: Share of right ones, in [0, 1].
        calibration_error: Expected calibration error in ten bins, in [0, 1].
        better_than_chance: Whether it beats always naming the most frequent class, at a level of
            one per cent.
    """

    crops: int
    accuracy: float
    calibration_error: float
    better_than_chance: bool


def is_better_than_chance(scorer: object) -> bool:
    """Returns False where held-out crops have shown that a scorer knows nothing."""
    held_out = getattr(scorer, 'held_out', None)
    return held_out is None or held_out.better_than_chance


def judge(probabilities: Tensor, labels: Tensor) -> HeldOutQuality:
    """Compares probabilities, (N, classes), with labels, (N,), of held-out crops."""
    count = len(labels)
    if not count:
        return HeldOutQuality(0, 0.0, 0.0, False)
    right = int((probabilities.argmax(dim=1) == labels).sum())
    most_frequent = int(labels.bincount().max()) / count
    p_value = binomtest(right, count, most_frequent, alternative='greater').pvalue
    error = expected_calibration_error(probabilities, labels)
    return HeldOutQuality(count, right / count, error, bool(p_value < _CHANCE_LEVEL))
