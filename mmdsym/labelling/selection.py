"""Choosing images one by one, so that each is new beside those chosen before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .novelty import FeatureSpace

NOVELTY_ALONE = 0.25
"""What novelty is worth where no detector has a doubt: it may have overlooked a new defect."""

_SAME_IMAGE = 1e-5


@dataclass(frozen=True)
class Choice:
    """A chosen image.

    Attributes:
        index: Which one.
        score: What it was worth when it was chosen, in [0, 1].
        novelty: How new it was then, beside labelled and chosen images, in [0, 1].
        from_labelled: Whether a labelled image, and not a chosen one, is the closest to it.
    """

    index: int
    score: float
    novelty: float
    from_labelled: bool


def select(space: FeatureSpace, doubt: Tensor, count: int) -> list[Choice]:
    """Chooses greedily by novelty times doubt, as core-set selection does by distance alone.

    A copy of a labelled or chosen image is worth nothing, however doubtful it is, and is not
    chosen.

    Args:
        space: Of the images.
        doubt: (N,) in [0, 1].
        count: Most images to choose.

    Returns:
        The chosen images, best first.
    """
    nearest = space.from_labelled.clone()
    weight = (NOVELTY_ALONE + doubt) / (NOVELTY_ALONE + 1)
    chosen: list[Choice] = []
    for _ in range(min(count, len(doubt))):
        novelty = space.novelty(nearest)
        score = torch.where(nearest > _SAME_IMAGE, novelty * weight, -torch.inf)
        for choice in chosen:
            score[choice.index] = -torch.inf
        best = int(score.argmax())
        if not score[best].isfinite():
            break
        alone = bool(nearest[best] == space.from_labelled[best])
        chosen.append(Choice(best, float(score[best]), float(novelty[best]), alone))
        nearest = torch.minimum(nearest, space.distance_to(best))
    return chosen
